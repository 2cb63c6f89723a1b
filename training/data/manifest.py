"""Manifests: a CSV or JSON file that lists annotated images and loops, and which part of the data each belongs to.

A CSV file has a line a case and these columns; a JSON file has ``{"cases": [{...}, ...]}`` with the same names:

=========== ============================================================================================
frames      image, video or other file of a loop, or folder of frames (may be headed ``image`` or ``loop``)
masks       mask file, folder of masks, or several files with ``;`` between them (or ``mask``)
subject     whose it is (optional, but without it a subject may end up in several parts)
source      the data set (optional)
spacing_mm  size of a pixel, one number or row and column (optional)
part        train, val or test (optional; ``uniultra data split`` fills it in)
name        optional; else made of the path
labels      ``1=nerve;2=vessel``: the mask's values that count (optional)
separate    ``yes`` when connected parts are structures of their own (optional)
=========== ============================================================================================

A CSV file may have semicolons or tabs between its values, and commas in its numbers, as spreadsheets of many countries
save it; several paths or labels in one value then stand in ``"..."``. Names of columns: core.manifest_table.

Relative paths are relative to the manifest and stay within its folder; data elsewhere are named by absolute paths.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.csv_table import decimal, read_separated
from napari_uniultra.core.manifest_table import COLUMNS, labels_of, list_of, write_rows
from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import PARTS, Annotated, Case, OpenCase, iterate_case, load_case
from napari_uniultra.training.data.overlap import check_overlap

__all__ = [
    "PARTS",
    "Annotated",
    "Case",
    "Manifest",
    "OpenCase",
    "iterate_case",
    "load_case",
    "merge_manifests",
    "read_manifest",
    "write_manifest",
]

_ALIASES = {"image": "frames", "loop": "frames", "mask": "masks", "spacing": "spacing_mm"}
_YES, _NO = ("yes", "true", "1"), ("", "no", "false", "0")


@dataclass(frozen=True)
class Manifest:
    """Cases whose names differ and whose parts do not overlap.

    Raises
    ------
    ReadError
        For two cases of one name, or an overlap of parts (see `overlap.check_overlap`).
    """

    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        names: set[str] = set()
        for case in self.cases:
            if case.name in names:
                raise ReadError(f"Two cases are called {case.name}", fix="Give each a name of its own")
            names.add(case.name)
        check_overlap(self.cases)

    def part(self, name: str) -> tuple[Case, ...]:
        """The cases of ``train``, ``val`` or ``test``; of ``""`` those that are in none."""
        if name not in (*PARTS, ""):
            raise ReadError(f"There is no part {name!r}", fix=f"Choose one of {', '.join(PARTS)}")
        return tuple(case for case in self.cases if case.part == name)


def read_manifest(path: str | Path, without_parts: bool = False) -> Manifest:
    """Read a CSV or JSON manifest.

    Parameters
    ----------
    without_parts : bool
        Leave the parts out, which may overlap, to divide the cases anew.

    Raises
    ------
    ReadError
        Naming the line and what is wrong with it: a column or value that is not known, a file that is not there, a
        relative path out of the manifest's folder, or parts that overlap.
    """
    path = Path(path)
    is_json = path.suffix.lower() == ".json"
    rows, separator = (_json_rows(path), ",") if is_json else read_separated(path)  # rows by their numbers
    if not rows:
        raise ReadError(f"The manifest {path} lists no case", fix="Give it a line a case, with 'frames' and 'masks'")
    cases = (_Row(path, number, row, separator).case() for number, row in rows.items())
    return Manifest(tuple(replace(case, part="") if without_parts else case for case in cases))


def merge_manifests(manifests: Iterable[Manifest]) -> Manifest:
    """Several manifests as one; a name that was taken is put behind its manifest's number, as ``2/name``.

    Raises
    ------
    ReadError
        When a part of one overlaps with another part of another.
    """
    cases: list[Case] = []
    for number, manifest in enumerate(manifests, 1):
        taken = {case.name for case in cases}
        for case in manifest.cases:
            cases.append(replace(case, name=f"{number}/{case.name}") if case.name in taken else case)
    return Manifest(tuple(cases))


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest, as CSV or JSON by its suffix; files in its folder are named relative to it.

    Raises
    ------
    WriteError
    """
    path = Path(path)
    folder = path.parent.resolve()
    rows = [_plain(case, folder) for case in manifest.cases]
    if path.suffix.lower() != ".json":
        write_rows(path, rows)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"cases": rows}, indent=1, ensure_ascii=False), encoding="utf-8")


def _json_rows(path: Path) -> dict[int, dict[str, Any]]:
    failed, form = f"The manifest {path} cannot be read", 'Write {"cases": [{"frames": ..., "masks": ...}]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ReadError(failed, error.strerror or "", "Check the path") from error
    except ValueError as error:
        raise ReadError(failed, f"it is not JSON: {error}", form) from error
    rows = content.get("cases") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ReadError(failed, "it holds no list of cases", form)
    return dict(enumerate(rows, 1))


class _Row:
    """One line of a manifest on its way to a `Case`."""

    def __init__(self, manifest: Path, number: int, row: Mapping[str, Any], separator: str) -> None:
        self.manifest, self.number, self.separator = manifest, number, separator
        self.values = {}
        for key, value in row.items():
            column = _ALIASES.get(key.strip().lower(), key.strip().lower())
            if column not in COLUMNS:
                near = difflib.get_close_matches(column, [*COLUMNS, *_ALIASES], n=1)
                fix = f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(COLUMNS)}"
                raise self.fault(f"there is no column {key!r}", fix)
            self.values[column] = value.strip() if isinstance(value, str) else value

    def fault(self, why: str, fix: str = "") -> ReadError:
        return ReadError(f"{self.manifest}, case {self.number}, cannot be used", why, fix)

    def case(self) -> Case:
        masks = self.values.get("masks")
        masks = list_of(masks) if isinstance(masks, str) else masks
        for column, value in (("frames", self.values.get("frames")), ("masks", masks)):
            if not value:
                raise self.fault(f"it names no {column}", "Give each case 'frames' and 'masks'")
        if not isinstance(masks, list):
            raise self.fault(f"its masks are {masks!r}", "Give a path, or a list of paths")
        part = str(self.values.get("part") or "").lower()
        if part not in (*PARTS, ""):
            raise self.fault(f"its part is {part!r}", f"Choose one of {', '.join(PARTS)}")
        return Case(
            name=str(self.values.get("name") or self.default_name()),
            frames=self.path(self.values["frames"]),
            masks=tuple(self.path(mask) for mask in masks),
            subject=str(self.values.get("subject") or ""),
            source=str(self.values.get("source") or ""),
            spacing_mm=self.spacing(),
            part=part,
            labels=self.labels(),
            separate=self.flag(),
        )

    def default_name(self) -> str:
        """The path, relative to the manifest; of a file elsewhere, its last two parts."""
        path = Path(str(self.values["frames"]))
        return Path(*path.parts[-2:]).as_posix() if path.is_absolute() else path.as_posix()

    def path(self, text: Any) -> Path:
        if not isinstance(text, str) or "\0" in text:
            raise self.fault(f"{text!r} is not a path")
        folder = self.manifest.parent.resolve()
        path = Path(text)
        if not path.is_absolute():
            if PureWindowsPath(text).drive or PurePosixPath(text).is_absolute():
                raise self.fault(f"{text} is a path of another system", "Name the file as this computer does")
            path = (folder / path).resolve()
            if not path.is_relative_to(folder):
                raise self.fault(f"{text} leads out of the manifest's folder", "Give data elsewhere by absolute path")
        if not path.exists():
            raise self.fault(f"{text} does not exist", "Check the path")
        return path

    def spacing(self) -> tuple[float, float] | None:
        value = self.values.get("spacing_mm")
        if value in (None, "", []):
            return None
        sizes = _sizes(value, self.separator) if isinstance(value, str) else value
        sizes = sizes if isinstance(sizes, Sequence) else [sizes]
        try:
            spacing = tuple(decimal(size) for size in (sizes if len(sizes) == 2 else [*sizes, *sizes]))
        except (TypeError, ValueError):
            spacing = ()
        if len(spacing) != 2 or not all(0 < size < 1000 for size in spacing):
            raise self.fault(f"its spacing is {value!r}", "Give one size of a pixel in mm, or row and column")
        return spacing

    def labels(self) -> dict[int, str]:
        value = self.values.get("labels") or {}
        value = labels_of(value) if isinstance(value, str) else value
        try:
            return {int(number): str(name).strip() or str(number).strip() for number, name in value.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise self.fault(f"its labels are {value!r}", "Write them as 1=nerve;2=vessel") from error

    def flag(self) -> bool:
        text = str(self.values.get("separate") or "").lower()
        if text not in (*_YES, *_NO):
            raise self.fault(f"separate is {text!r}", "Write yes or no")
        return text in _YES


def _sizes(text: str, separator: str) -> list[str]:
    """One number or two: "0.2", "0.2,0.3", "1,1" or "0.2 0.3"; or with commas in them: "0,2 0,3".

    "0,2" is one number too, in a table that has no commas between its values.
    """
    has_commas_in_numbers = "." not in text and (separator != "," or len(text.split()) > 1)
    return (text if has_commas_in_numbers else text.replace(",", " ")).split()


def _plain(case: Case, folder: Path) -> dict[str, Any]:
    """A case as JSON-ready data."""

    def relative(path: Path) -> str:
        path = path.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)

    return {
        "frames": relative(case.frames),
        "masks": [relative(path) for path in case.masks],
        "subject": case.subject,
        "source": case.source,
        "spacing_mm": list(case.spacing_mm) if case.spacing_mm else None,
        "part": case.part,
        "name": case.name,
        "labels": {str(value): name for value, name in case.labels.items()},
        "separate": case.separate,
    }
