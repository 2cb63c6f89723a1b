"""Which loops a job is about: files, folders, patterns and a CSV table, each under a name of its own."""

from __future__ import annotations

import glob
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from napari_uniultra.batch.naming import code_name, needs_code, without_paths
from napari_uniultra.batch.settings import InputSettings
from napari_uniultra.core.csv_table import read_table, whole
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import SUFFIXES, can_read, is_zarr
from napari_uniultra.io.study import is_dicomdir

_COLUMNS = ("loop", "name", "subject", "prompts", "mask", "frame", "session", "reference")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")  # several in a folder are the frames of one loop
_MOST_NAME = 200  # characters; file systems take 255 bytes a part


@dataclass(frozen=True)
class Loop:
    """One input.

    Attributes
    ----------
    name : str
        Unlike all others; may have folders, with ``/`` between them. It names the loop's results.
    path : Path
        Absolute.
    subject : str
        Whose it is; empty when unknown.
    given : mapping of str to Path
        What the table names for it: prompts, mask, session, reference.
    frame : int, optional
        On which an automatic start or a mask of one frame begins.
    file_name : str
        The name after its file, by which prompts and references are found as well; empty unless ``name`` is a code.
    named : bool
        Whether the table gave it its name.
    """

    name: str
    path: Path
    subject: str = ""
    given: Mapping[str, Path] = field(default_factory=dict)
    frame: int | None = None
    file_name: str = ""
    named: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names that files which belong to it may have."""
        return (self.name, self.file_name) if self.file_name else (self.name,)

    def plain(self, words: str, *shared: Path) -> str:
        """Words about it, without what its files are called where its name does not say that either."""
        if not (self.file_name or self.named):
            return words
        return without_paths(words, self.name, (self.path, *self.given.values()), shared)


@dataclass(frozen=True)
class Refused:
    """An input that cannot be worked on, and why; ``path`` is there when its name is a code."""

    name: str
    reason: str
    path: Path | None = None


def find_loops(inputs: InputSettings, results: Path, names: str = "auto") -> tuple[list[Loop], list[Refused]]:
    """All loops in the order of their names, and the inputs that were refused.

    Parameters
    ----------
    inputs : InputSettings
    results : Path
        The folder of the results; what lies in it is no input.
    names : str
        The setting ``outputs.names``.

    Raises
    ------
    ReadError
        When the table cannot be read.
    """
    refused: list[Refused] = []
    found: dict[Path, Loop] = {}
    for number, text in enumerate(inputs.loops, 1):
        own = list(_loops_of(text, inputs.images == "stills", results.absolute()))
        for loop in own:
            found.setdefault(loop.path, loop)
        if not own:
            refused.append(_without_loops(number, text, names))
    loops, collided = _tell_apart(list(found.values()))
    if inputs.table:
        named, wrong = _read_table(Path(inputs.table), names)
        loops, refused = loops + named, refused + wrong
    loops, doubled = _without_doubles(loops, names)
    loops, copies = _coded(loops, names)
    hidden = [_coded_refusal(entry, names) for entry in collided + doubled]
    return sorted(loops, key=lambda loop: loop.name), refused + hidden + copies


def _without_loops(number: int, text: str, names: str) -> Refused:
    """An input that gave no loop. A folder may be named after a patient, as the DICOM loops may be that it lacks."""
    path = Path(text)
    hidden = needs_code(path, names) or (names == "auto" and path.is_dir())
    if is_dicomdir(path):
        reason = "It is the list of what is on a disc, and no loop. Name its folder instead"
    else:
        reason = "No loop is in it" if any(True for _ in _matches(text)) else "Nothing is there"
    return Refused(f"input {number}" if hidden else text, reason, path if hidden else None)


def _coded(loops: Sequence[Loop], names: str) -> tuple[list[Loop], list[Refused]]:
    """The loops under code names where they need them, and those that are copies of others."""
    kept: dict[str, Loop] = {}
    copies: list[Refused] = []
    for loop in loops:
        if loop.named or not needs_code(loop.path, names):
            kept[loop.name] = loop
            continue
        coded = replace(loop, name=_code_of(loop.path), file_name=loop.name)
        if coded.name in kept:
            reason = f"It is a copy of {coded.name}, which is done once"
            copies.append(Refused(f"{coded.name} (copy {len(copies) + 1})", reason, loop.path))
        else:
            kept[coded.name] = coded
    return list(kept.values()), copies


def _code_of(path: Path) -> str:
    """Also for what cannot be read; it fails later, with the reason."""
    try:
        return code_name(path)
    except OSError:
        return f"unreadable-{uuid.uuid4().hex[:12]}"


def _coded_refusal(entry: Refused, names: str) -> Refused:
    if entry.path is None or not needs_code(entry.path, names):
        return replace(entry, path=None)
    return replace(entry, name=_code_of(entry.path), reason="Two inputs have its name. Give them names in a table.")


def checked_name(name: str) -> str:
    """A loop's name that may be used as a path below the folder of results.

    Raises
    ------
    ReadError
        When it leads anywhere else, on any system, or is hidden or too long.
    """
    parts = name.split("/")
    leads_out = any(kind.anchor or ".." in kind.parts for kind in (PurePosixPath(name), PureWindowsPath(name)))
    strange = leads_out or not name or any(not part.strip() or part.startswith(".") for part in parts)
    if strange or any(ord(letter) < 32 for letter in name) or max(map(len, parts)) > _MOST_NAME:
        raise ReadError(
            f"{name[:80]!r} cannot be a loop's name",
            "it would not stay within the folder of results",
            "Use letters, digits, '-' and '_', and '/' between folders",
        )
    return name


def _matches(text: str) -> Iterator[str]:
    return iter([text]) if os.path.exists(text) else glob.iglob(text, recursive=True)


def _loops_of(text: str, as_stills: bool, results: Path) -> Iterator[Loop]:
    root = Path(text if os.path.isdir(text) else _fixed_part(text)).absolute()
    for match in sorted(_matches(text)):
        path = Path(match).absolute()
        for file in _readable(path, as_stills, results):
            yield Loop(_relative(file, root), file)


def _fixed_part(pattern: str) -> str:
    """The folder above the first part of a pattern that is not plain."""
    plain = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        plain.append(part)
    return os.path.join(*plain) if plain else "."


def _relative(path: Path, root: Path) -> str:
    relative = path.relative_to(root) if path != root and path.is_relative_to(root) else Path(path.name)
    return relative.as_posix()


def _readable(path: Path, as_stills: bool, results: Path) -> Iterator[Path]:
    """The loops in a file or folder; what cannot be a loop is passed by, unless it was named itself."""
    if path == results or results in path.parents or is_dicomdir(path):
        return
    if not path.is_dir():
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder)
        if here == results or results in here.parents:
            folders.clear()
            continue
        if is_zarr(here):
            folders.clear()
            yield here
            continue
        pictures = [name for name in files if name.lower().endswith(_PICTURES) and not name.startswith(".")]
        as_loop = not as_stills and len(pictures) > 1
        if as_loop:
            yield here
        for name in sorted(files):
            if name.startswith(".") or (as_loop and name in pictures):
                continue
            if not is_dicomdir(here / name) and can_read(here / name):
                yield here / name


def _without_suffix(name: str) -> str:
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)] if suffix and not name[: -len(suffix)].endswith("/") else name


def _tell_apart(loops: Sequence[Loop]) -> tuple[list[Loop], list[Refused]]:
    """Names without suffixes; where two would be the same, with them; what is the same even then is refused."""
    short = _grouped(loops, lambda loop: _without_suffix(loop.name))
    named = [
        replace(loop, name=name if len(group) == 1 else loop.name) for name, group in short.items() for loop in group
    ]
    kept, refused = [], []
    for name, group in _grouped(named, lambda loop: loop.name).items():
        if len(group) == 1:
            kept += group
        else:
            refused += [_same_name(name, loop) for loop in group]
    return kept, refused


def _grouped(loops, key) -> dict[str, list[Loop]]:
    groups: dict[str, list[Loop]] = defaultdict(list)
    for loop in loops:
        groups[key(loop)].append(loop)
    return groups


def _same_name(name: str, loop: Loop) -> Refused:
    return Refused(name, f"Two inputs have this name, one is {loop.path}. Give them names in a table.", loop.path)


def _without_doubles(loops: Sequence[Loop], names: str) -> tuple[list[Loop], list[Refused]]:
    kept: list[Loop] = []
    refused: list[Refused] = []
    for name, group in _grouped(loops, lambda loop: loop.name.casefold()).items():
        if len(group) > 1:  # also those that differ in capitals: some file systems see one file
            refused += [_same_name(loop.name, loop) for loop in group]
            continue
        try:
            if not needs_code(group[0].path, names):
                checked_name(group[0].name)
            kept += group
        except ReadError as error:
            refused.append(Refused(name[:80], str(error)))
    return kept, refused


def _read_table(path: Path, names: str) -> tuple[list[Loop], list[Refused]]:
    rows = read_table(path)
    columns = list(next(iter(rows.values()), ()))
    unknown = [name for name in columns if name not in _COLUMNS]
    if not rows or "loop" not in columns or unknown:
        why = f"it has the unknown column {unknown[0]!r}" if unknown else "it has no line, or no column 'loop'"
        raise ReadError(f"The table {path.name} cannot be used", why, f"Columns are {', '.join(_COLUMNS)}")
    loops, refused = [], []
    for number, values in rows.items():
        try:
            loops.append(_loop_of_row(values, path.parent.absolute(), names))
        except ReadError as error:
            file = values.get("loop", "")
            shown = "" if needs_code(path.parent / file, names) else file
            name = values.get("name") or shown or f"line {number}"
            refused.append(Refused(name[:80], f"Line {number} of {path.name}: {error}"))
    return loops, refused


def _loop_of_row(values: Mapping[str, str], folder: Path, names: str) -> Loop:
    if not values.get("loop"):
        raise ReadError("It names no loop")
    path = Path(os.path.normpath(folder / values["loop"]))
    given = {key: folder / values[key] for key in ("prompts", "mask", "session", "reference") if values.get(key)}
    missing = [key for key, file in given.items() if not file.exists()]
    if missing:
        raise ReadError(f"The file in its column {missing[0]!r} does not exist")
    name = values.get("name") or _without_suffix(path.name)
    return Loop(
        name=name if not values.get("name") and needs_code(path, names) else checked_name(name),
        path=path,
        subject=values.get("subject", ""),
        given=given,
        frame=_frame(values.get("frame", "")),
        named=bool(values.get("name")),
    )


def _frame(text: str) -> int | None:
    try:
        return whole(text) if text else None
    except ValueError:
        raise ReadError(f"Its column 'frame' has {text!r}", "it should be a whole number") from None
