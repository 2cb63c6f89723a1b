"""Names that say nothing about a patient, for loops whose file names may.

A code name is made of the loop's content, not of its path: it is the same on every machine and after the file was
moved, and nobody who lacks the loop can find it by trying names.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from napari_uniultra.core.csv_table import write_table
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import data_file, is_dicom

IDENTIFYING = "identifying"  # the one folder of results that says which file a loop comes from
NAMES = "names.csv"

_PIECE, _PIECES = 1 << 16, 8  # bytes, and how many, that are read of a file: a header, and pixels here and there
_FEWEST_LETTERS = 3  # of a file's name without its suffix, to be looked for in words
_NO_WORD = 6  # letters from which it is looked for within longer words too


def needs_code(path: Path, names: str) -> bool:
    """Whether a loop goes by a code name, by the setting ``outputs.names``: files, codes, or auto."""
    return names == "codes" or (names == "auto" and is_dicom(path))


def code_name(path: Path) -> str:
    """``loop-`` and twelve hexadecimal digits of the content.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else _with_data(path):
        if file.is_file():
            _add(digest, file)
    return f"loop-{digest.hexdigest()[:12]}"


def _with_data(path: Path) -> Iterable[Path]:
    """A file, and the one that holds its pixels where it is only their header: loops may have the same header."""
    try:
        return dict.fromkeys((path, data_file(path)))
    except ReadError:  # what is wrong with it is told of when it is read
        return [path]


def _add(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(size.to_bytes(8, "big"))
    with file.open("rb") as stream:
        for number in range(_PIECES):
            stream.seek(max(0, size - _PIECE) * number // (_PIECES - 1))
            digest.update(stream.read(_PIECE))


def without_paths(words: str, name: str, own: Iterable[Path], shared: Iterable[Path] = ()) -> str:
    """Words about a loop with its name in place of what its own files are called, and without folders."""
    own = list(own)
    folders = {path.parent for path in (*own, *shared)}
    for folder in sorted((str(path) for path in folders if path.name), key=len, reverse=True):
        words = words.replace(folder, "").replace(f"{os.sep}{os.sep}", os.sep)
    called = [path.name for path in own]
    called += [file.name for path in own if path.is_dir() for file in path.iterdir() if file.is_file()]
    stems = {stem for text in called if len(stem := text.partition(".")[0]) >= _FEWEST_LETTERS}
    for text in sorted({*called, *stems}, key=len, reverse=True):
        edges = ("", "") if len(text) >= _NO_WORD else (r"(?<!\w)", r"(?!\w)")
        words = re.sub(re.escape(text).join(edges), lambda _: name, words)
    return words


def write_names(folder: Path, paths: Mapping[str, Path]) -> Path:
    """The table of which loop is which file.

    Raises
    ------
    WriteError
    """
    target = folder / IDENTIFYING / NAMES
    write_table(target, ("loop", "file"), ((name, str(path)) for name, path in sorted(paths.items())))
    return target
