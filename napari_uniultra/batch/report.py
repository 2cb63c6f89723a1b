"""A batch as one HTML file that needs nothing else: what needs a look first, with pictures, curves and commands."""

from __future__ import annotations

import io
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from napari_uniultra.batch.agreement import BlandAltman, bland_altman
from napari_uniultra.batch.results import MEASUREMENTS, SHEET, Record, loop_folder
from napari_uniultra.batch.tables import AGREEMENT_CSV
from napari_uniultra.batch.worker import Outcome
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.csv_table import read_table
from napari_uniultra.core.words import counted
from napari_uniultra.io.charts import Series, chart
from napari_uniultra.io.report_parts import figure, page, table

REPORT = "report.html"

_SHEET_WIDTH = 640  # pixels
_MOST_DOTS = 2000  # of a chart; more only hide each other
_STYLE = "code { background: #f3f3f3; padding: .1rem .3rem; user-select: all; } .loop { border-top: 1px solid #ddd; }"
_NOTE = (
    "Research use only: not a medical device. Names and pictures of loops are in this file: share it as you would "
    "share the data."
)
_RANK = (
    "The order is by signs of trouble: the predicted IoU that one frame in twenty falls below, jumps of area, and "
    "frames on which an object is absent. It is an aid to looking, not a measure of error."
)


def write_report(
    folder: Path, records: Sequence[Record], failures: Sequence[Outcome], job_file: Path, pictures: int
) -> Path:
    """Write the report.

    Parameters
    ----------
    folder : Path
        Of the results.
    records : sequence of dict
        Of the loops that are done.
    failures : sequence of Outcome
    job_file : Path
        What the commands that open a loop name.
    pictures : int
        Loops that are shown; the others stand in the table alone.

    Raises
    ------
    WriteError
    """
    ranked = sorted(records, key=lambda record: (-record["review"]["rank"], record["name"]))
    sections = [
        _head(ranked, failures),
        _failures(failures),
        _agreement(folder, ranked),
        _table(ranked),
        "<h2>Loops, those that most need a look first</h2>" if ranked else "",
        *(_loop(folder, record, job_file) for record in ranked[:pictures]),
    ]
    with atomic_path(folder / REPORT) as temporary:
        temporary.write_text(page("Batch", sections, _STYLE), encoding="utf-8")
    return folder / REPORT


def open_command(job_file: Path, name: str) -> str:
    """The shell command that opens a loop in napari, with its session."""
    return f"uniultra batch {shlex.quote(str(job_file))} --open {shlex.quote(name)}"


def _head(records: Sequence[Record], failures: Sequence[Outcome]) -> str:
    frames = sum(record["frames"] for record in records)
    corrected = sum(bool(record["corrected"]) for record in records)
    models = sorted({_model(record) for record in records if record.get("model")})
    done = f"{counted(len(records), 'loop')} with {counted(frames, 'frame')}"
    facts = f"Done: {done}, {corrected:,} corrected by hand; "
    facts += f"failed: {len(failures):,}."
    return (
        f'<h1>Batch</h1><p>{facts}</p><p>{escape("; ".join(models))}</p><p class="note">{_NOTE}</p>'
        f'<p class="note">{_RANK}</p>'
    )


def _model(record: Record) -> str:
    model = record["model"]
    return f"Model {model['name']}, input {model['image_size']} px, SHA-256 {model['sha256'][:16]}"


def _failures(failures: Sequence[Outcome]) -> str:
    if not failures:
        return ""
    return "<h2>Failed</h2>" + table(["loop", "why"], [[entry.name, entry.reason] for entry in failures])


def _table(records: Sequence[Record]) -> str:
    if not records:
        return ""
    heads = ["loop", "what stands out", "rank", "mean confidence", "frames", "corrected", "Dice"]
    return "<h2>All loops</h2>" + table(heads, [_line(record) for record in records])


def _line(record: Record) -> list[str]:
    found = record["review"]
    signs = "; ".join(found["signs"])
    dice = (record.get("agreement") or {}).get("dice")
    return [
        record["name"],
        signs if len(signs) <= 120 else f"{signs[:117]}…",
        f"{found['rank']:.2f}",
        _number(found["confidence"]),
        str(record["frames"]),
        "yes" if record["corrected"] else "",
        _number(dice),
    ]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


# One loop ---------------------------------------------------------------------------------------------------------


def _loop(folder: Path, record: Record, job_file: Path) -> str:
    name = record["name"]
    signs = escape("; ".join(record["review"]["signs"]) or "nothing stands out")
    parts = [f'<div class="loop"><h3>{escape(name)}</h3><p>{signs}</p>']
    parts.append(f"<p><code>{escape(open_command(job_file, name))}</code></p>")
    own = loop_folder(folder, name)
    if (own / SHEET).is_file():
        parts.append(figure(_small(own / SHEET), counted(record["frames"], "frame"), "jpeg"))
    rows = list(read_table(own / MEASUREMENTS).values())
    unit = "mm2" if any("area_mm2" in row for row in rows[:1]) else "px"
    areas = _curves(rows, f"area_{unit}")
    if areas:
        words = "area, mm²" if unit == "mm2" else "area, px"
        parts.append(chart(areas, "frame", words, y_range=(0, _top(areas))))
    parts.append(chart(_curves(rows, "predicted_iou"), "frame", "predicted IoU"))
    return "".join([*parts, "</div>"])


def _small(path: Path) -> bytes:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_SHEET_WIDTH, 4 * _SHEET_WIDTH))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def _curves(rows: Iterable[Mapping[str, str]], column: str) -> list[Series]:
    lines: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row[column]:
            lines[int(row["object_id"]), row["object"]].append((float(row["frame"]), float(row[column])))
    return [Series(name, points) for (_, name), points in sorted(lines.items())]


def _top(series: Iterable[Series]) -> float:
    return 1.05 * max(y for own in series for _, y in own.points)


# Agreement --------------------------------------------------------------------------------------------------------


def _agreement(folder: Path, records: Sequence[Record]) -> str:
    compared = [record for record in records if record.get("agreement")]
    if not compared:
        return ""
    rows = read_table(folder / AGREEMENT_CSV).values()
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["object"], row["area_unit"]].append(row)
    lines, charts = [], []
    for (name, unit), own in sorted(groups.items()):
        lines.append(_agreement_line(name, unit, own))
        charts.append(f"<h3>{escape(name)}</h3>{_bland_altman_chart(own, unit)}")
    heads = [
        "object",
        "unit of area",
        "loops",
        "frames",
        "mean Dice",
        "mean HD95",
        "bias of area",
        "limits of agreement",
    ]
    note = (
        "Against the reference masks. Area differences are found minus reference; the limits are the bias ± 1.96 "
        "standard deviations over frames. Frames of one loop resemble each other, so the limits are those of frames, "
        "not of subjects. A distance that does not exist, where one of the masks is empty, is left out of the mean of "
        "HD95."
    )
    return f'<h2>Agreement</h2><p class="note">{note}</p>{table(heads, lines)}{"".join(charts)}'


def _agreement_line(name: str, unit: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    found = _bland_altman(rows)
    distances = [float(row["hd95"]) for row in rows if row["hd95"] != "inf"]
    missing = len(rows) - len(distances)
    hd95 = f"{sum(distances) / len(distances):.2f} {rows[0]['length_unit']}" if distances else "–"
    return [
        name,
        unit,
        str(len({row["loop"] for row in rows})),
        str(len(rows)),
        _number(sum(float(row["dice"]) for row in rows) / len(rows), 3),
        hd95 + (f" ({missing} left out)" if missing else ""),
        f"{found.bias:+.1f}",
        f"{found.low:+.1f} to {found.high:+.1f}" if found.count > 1 else "–",
    ]


def _bland_altman(rows: Sequence[Mapping[str, str]]) -> BlandAltman:
    return bland_altman((float(row["area"]) for row in rows), (float(row["reference_area"]) for row in rows))


def _bland_altman_chart(rows: Sequence[Mapping[str, str]], unit: str) -> str:
    found = _bland_altman(rows)
    pairs = [(float(row["area"]), float(row["reference_area"])) for row in rows]
    points = [((own + other) / 2, own - other) for own, other in pairs]
    shown = points[:: -(-len(points) // _MOST_DOTS)]
    right = max(x for x, _ in points) * 1.05 or 1.0
    levels = [("bias", found.bias)]
    if found.count > 1:
        levels += [("bias − 1.96 SD", found.low), ("bias + 1.96 SD", found.high)]
    lines = [Series(words, [(0, level), (right, level)], dashed=True) for words, level in levels]
    series = [Series("frames", shown, [2.5] * len(shown), dots_only=True), *lines]
    heights = [y for _, y in points] + [level for _, level in levels]
    margin = 0.1 * (max(heights) - min(heights)) or 1.0
    words = "mm²" if unit == "mm2" else unit
    return chart(
        series,
        f"mean of both areas, {words}",
        f"found − reference, {words}",
        x_max=right,
        y_range=(min(heights) - margin, max(heights) + margin),
    )
