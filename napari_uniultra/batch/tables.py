"""Results of all loops together: one table of measurements, one of agreement, and a manifest for the trainers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_uniultra.batch.naming import IDENTIFYING
from napari_uniultra.batch.results import AGREEMENT, MASKS, MEASUREMENTS, Record, loop_folder, may_be_of, read_record
from napari_uniultra.batch.worker import FAILED, Outcome
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.csv_table import read_table, write_table
from napari_uniultra.core.manifest_table import plain_name, write_rows
from napari_uniultra.errors import WriteError

MEASUREMENTS_CSV, MEASUREMENTS_PARQUET = "measurements.csv", "measurements.parquet"
AGREEMENT_CSV, FAILURES = "agreement.csv", "failures.csv"
MANIFEST = f"{IDENTIFYING}/manifest.csv"
NOT_IN_MANIFEST = f"{IDENTIFYING}/not_in_manifest.csv"  # its lines of loops without results, until they have some

_OF_FAILURE = ("loop", "error", "why")
_FIRST = ("loop", "subject")
_TEXT = ("loop", "subject", "object")
_WHOLE = ("frame", "object_id", "cut_by_border")
_GROUP_ROWS = 200_000  # of a row group in Parquet: what is in memory at a time


def write_measurements(folder: Path, records: Sequence[Record], parquet: bool) -> list[Path]:
    """One line for every loop, frame and object, as CSV and, where asked for, Parquet.

    Loops whose spacing is known fill the columns in mm, others those in px.

    Raises
    ------
    WriteError
    """
    header = _header(folder, records)
    paths = [folder / MEASUREMENTS_CSV]
    write_table(paths[0], header, ([row.get(name, "") for name in header] for row in _rows(folder, records)))
    if parquet and records:
        paths.append(folder / MEASUREMENTS_PARQUET)
        _to_parquet(paths[0], paths[1])
    return paths


def write_failures(folder: Path, failures: Iterable[Outcome]) -> None:
    """The loops that failed, and why; an empty table where none did.

    Raises
    ------
    WriteError
    """
    write_table(folder / FAILURES, _OF_FAILURE, ((entry.name, entry.kind, entry.reason) for entry in failures))


def read_failures(folder: Path) -> list[Outcome]:
    """What `write_failures` wrote, or nothing."""
    if not (folder / FAILURES).is_file():
        return []
    rows = read_table(folder / FAILURES).values()
    return [Outcome(row["loop"], FAILED, row["error"], row["why"]) for row in rows]


def clear_tables(folder: Path) -> None:
    """Remove tables about results that are no more."""
    for name in (MEASUREMENTS_CSV, MEASUREMENTS_PARQUET, AGREEMENT_CSV):
        (folder / name).unlink(missing_ok=True)


def write_agreement(folder: Path, records: Iterable[Record]) -> Path | None:
    """All loops' agreement with their references in one table; None where no loop has one.

    Raises
    ------
    WriteError
    """
    sources = [loop_folder(folder, record["name"]) / AGREEMENT for record in records if record.get("agreement")]
    if not sources:
        (folder / AGREEMENT_CSV).unlink(missing_ok=True)
        return None
    with atomic_path(folder / AGREEMENT_CSV) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, source in enumerate(sources):
            lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
            file.writelines(lines if number == 0 else lines[1:])
    return folder / AGREEMENT_CSV


def write_manifest(folder: Path, records: Iterable[Record], sources: Mapping[str, Path]) -> Path | None:
    """A manifest that the trainers take as a data set: every loop that is there, with its masks; None where none is.

    What the results do not say, such as the part or a column of people's own, stays as the manifest that was there has
    it. So does the line of a loop that has no results this time, as long as there are masks of it as it is; all other
    lines wait in a file beside the manifest.

    Parameters
    ----------
    sources : mapping of str to Path
        Name to file of all loops of the job.

    Raises
    ------
    ReadError
        When what was there cannot be read.
    WriteError
    """
    path, waiting = folder / MANIFEST, folder / NOT_IN_MANIFEST
    before = {
        row.get("name", ""): row for file in (waiting, path) if file.is_file() for row in read_table(file).values()
    }
    there = {name: source for name, source in sources.items() if source.exists()}
    rows = {
        record["name"]: _manifest_row(folder, record, there, before) for record in records if record["name"] in there
    }
    rows |= {
        name: {**before[name], "frames": str(source)}
        for name, source in there.items()
        if name in before and name not in rows and _has_masks(folder, name, source)
    }
    _write_lines(waiting, {name: row for name, row in before.items() if name not in rows})
    _write_lines(path, rows)
    return path if rows else None


def _has_masks(folder: Path, name: str, source: Path) -> bool:
    """Whether there are masks of a loop's file as it is now, whatever job they are of."""
    record = read_record(folder, name)
    return (loop_folder(folder, name) / MASKS).is_file() and record is not None and may_be_of(source, record)


def _write_lines(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A file without a line is none."""
    if rows:
        write_rows(path, (rows[name] for name in sorted(rows)))
    else:
        path.unlink(missing_ok=True)


def _manifest_row(
    folder: Path, record: Record, sources: Mapping[str, Path], before: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    name = record["name"]
    known = {
        "frames": str(sources[name]),
        "masks": str((loop_folder(folder, name) / MASKS).absolute()),
        "subject": record["subject"],
        "spacing_mm": record.get("spacing_mm"),
        "name": name,
        "labels": {number: plain_name(words) for number, words in record["objects"].items()},
    }
    return {**before.get(name, {}), **{column: value for column, value in known.items() if value}}


def _header(folder: Path, records: Sequence[Record]) -> list[str]:
    """The loop and its subject, then all columns that some loop has; lengths in mm stand before those in px."""
    seen: dict[str, None] = {}
    for record in records:
        with _table(folder, record).open(newline="", encoding="utf-8") as file:
            seen.update(dict.fromkeys(next(csv.reader(file), ())))
    plain = [name for name in seen if not name.endswith("_px")]
    return [*_FIRST, *plain, *(name for name in seen if name.endswith("_px"))]


def _rows(folder: Path, records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        with _table(folder, record).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield {"loop": record["name"], "subject": record["subject"], **row}


def _table(folder: Path, record: Record) -> Path:
    return loop_folder(folder, record["name"]) / MEASUREMENTS


def _to_parquet(source: Path, target: Path) -> None:
    import fastparquet
    import pandas

    columns = pandas.read_csv(source, nrows=0).columns
    kinds = {name: "object" if name in _TEXT else "Int64" if name in _WHOLE else "float64" for name in columns}
    with atomic_path(target) as temporary:
        chunks = pandas.read_csv(source, dtype=kinds, keep_default_na=False, na_values=[""], chunksize=_GROUP_ROWS)
        written = False
        for chunk in chunks:
            chunk = chunk.fillna({name: "" for name in _TEXT if name in chunk})
            options = {"object_encoding": {name: "utf8" for name in _TEXT if name in chunk}}
            fastparquet.write(str(temporary), chunk, append=written, compression="ZSTD", write_index=False, **options)
            written = True
        if not written:
            raise WriteError(f"{target.name} was not written", "there is no measurement")
