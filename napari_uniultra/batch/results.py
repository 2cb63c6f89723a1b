"""The folder of results: where things lie, and which loops are done.

``loops/NAME/`` has a loop's files and, written last, ``result.json``: without it, or when a file is not as it says, the
loop counts as not done. ``corrections/NAME.npz`` are sessions that a person corrected.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_uniultra.batch.task import LoopTask, input_sha256, input_state
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.errors import UniUltraError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.writers import FORMAT_NAMES, usual_path

LOOPS, CORRECTIONS = "loops", "corrections"
RECORD, MASKS, MEASUREMENTS, SESSION = "result.json", "masks.tif", "measurements.csv", "session.npz"
SHEET, AGREEMENT = "contact_sheet.png", "agreement.csv"

Record = dict[str, Any]


def loop_folder(folder: Path, name: str) -> Path:
    """Where a loop's results are."""
    return folder / LOOPS / name


def correction_file(folder: Path, name: str) -> Path:
    """Where a loop's corrected session is, if there is one."""
    return folder / CORRECTIONS / f"{name}.npz"


def read_record(folder: Path, name: str) -> Record | None:
    """A loop's record, or None where there is none that can be read."""
    try:
        record = json.loads((loop_folder(folder, name) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def ranked_records(folder: Path) -> list[Record]:
    """Records of all loops in a folder of results, those that most need a look first."""
    root = folder / LOOPS
    names = (path.parent.relative_to(root).as_posix() for path in root.rglob(RECORD)) if root.is_dir() else ()
    records = [record for record in (read_record(folder, name) for name in names) if record and "review" in record]
    return sorted(records, key=lambda record: (-record["review"]["rank"], record["name"]))


def write_record(folder: Path, record: Record, files: list[Path]) -> None:
    """Write a loop's record: from here on the loop is done.

    Raises
    ------
    WriteError
    """
    own = loop_folder(folder, record["name"])
    sizes = {path.relative_to(own).as_posix(): size_of(path) for path in files}
    with atomic_path(own / RECORD) as temporary:
        temporary.write_text(json.dumps({**record, "files": sizes}, indent=1) + "\n", encoding="utf-8")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; -1 where there is neither."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else -1


def holds(task: LoopTask, record: Record | None) -> bool:
    """Whether a loop's results are there, whole, and of this very input, prompts, model and settings.

    An input whose size and time of change are as they were is taken as unchanged; else its content decides.
    """
    return _is_of_job(task, record) and _is_of_input(task.loop.path, record)


def counts(task: LoopTask, record: Record | None) -> bool:
    """Whether a loop's results are shown: they hold, or held for a file that cannot be read now."""
    return _is_of_job(task, record) and may_be_of(task.loop.path, record)


def may_be_of(path: Path, record: Record) -> bool:
    """Whether a record is of a loop's file, as far as can be told: one that cannot be read now has no other content."""
    try:
        if _is_of_input(path, record):
            return True
        read_cine(path)
    except (UniUltraError, OSError):
        return True
    return False


def _is_of_input(path: Path, record: Record) -> bool:
    return record.get("input_state") == input_state(path) or record.get("input_sha256") == input_sha256(path)


def _is_of_job(task: LoopTask, record: Record | None) -> bool:
    """Whether a loop's results are there, whole, and of these prompts, model and settings, whatever its file is now."""
    if record is None or record.get("rest") != task.rest or not isinstance(record.get("files"), dict):
        return False
    own = loop_folder(task.folder, task.name)
    return all(size_of(own / name) == size for name, size in record["files"].items())


def clear_loop(folder: Path, name: str) -> None:
    """Take away what an earlier or a killed run left of a loop; the record goes first."""
    own = loop_folder(folder, name)
    with suppress(FileNotFoundError):
        (own / RECORD).unlink()
    sweep(own)
    for name in FORMAT_NAMES:
        path = usual_path(own, name)
        if path.is_dir():  # its writer takes no folder that has something in it
            shutil.rmtree(path, ignore_errors=True)


def sweep(folder: Path, deep: bool = False) -> int:
    """Remove half files that a killed process left; returns how many."""
    count = 0
    for path in (folder.rglob if deep else folder.glob)(".*.partial*") if folder.is_dir() else ():
        count += 1
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return count
