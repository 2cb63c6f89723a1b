"""What a batch says of a loop: signs of trouble, agreement, prompts in CSV files, and charts."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from napari_uniultra.batch.agreement import bland_altman
from napari_uniultra.batch.loops import find_loops
from napari_uniultra.batch.prompt_table import prompts_of_rows, read_prompt_rows
from napari_uniultra.batch.review import review
from napari_uniultra.batch.settings import InputSettings
from napari_uniultra.core.measure import Measurement
from napari_uniultra.core.types import WEAK_IOU, Prompt
from napari_uniultra.errors import PromptError
from napari_uniultra.io.charts import Series, chart


def rows_of(areas: list[float], iou: float = 0.9) -> list[Measurement]:
    return [Measurement(frame, None, 1, "lumen", area, "px", iou, 5.0) for frame, area in enumerate(areas)]


@pytest.mark.parametrize(
    "areas, iou, rank, words",
    [
        ([100, 95, 100], 0.9, 0.1, []),
        ([100, 95, 100], 0.4, 0.6, ["confidence down to 0.40"]),
        ([100, 95, 100], WEAK_IOU, 0.3, []),  # at which the viewer has no doubt either
        (
            [1, *[0] * 1199],
            0.9,
            1.0,
            ["lumen: its area changes by 100% at frame 1", "lumen: absent on 1,199 of 1,200 frames"],
        ),
        ([100, 50, 55], 0.9, 0.5, ["lumen: its area changes by 50% at frame 1"]),
        ([100, 0, 0, 100], 0.9, 1.0, ["lumen: its area changes by 100% at frame 1", "lumen: absent on 2 of 4 frames"]),
        ([], 0.9, 1.0, ["nothing was found"]),
    ],
)
def test_signs(areas: list[float], iou: float, rank: float, words: list[str]) -> None:
    found = review(rows_of(areas, iou))
    assert found.rank == pytest.approx(rank)
    assert list(found.signs) == words


def test_bland_altman_by_hand() -> None:
    found = bland_altman([10, 12, 14], [9, 12, 12])  # differences 1, 0, 2
    assert (found.count, found.bias) == (3, 1.0)
    assert (found.low, found.high) == (pytest.approx(1 - 1.96), pytest.approx(1 + 1.96))
    assert math.isnan(bland_altman([1], [2]).low)


def test_prompts_in_a_csv_file(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(
        "loop,frame,object,name,x0,y0,x1,y1,x,y,label\n"
        "a,3,1,lumen,30,2,10,20,,,\n"  # drawn from the right
        "a,3,1,,,,,,15,4,0\n"
        "b,0,,,,,,,1,2,\n"
    )
    rows = read_prompt_rows(file)
    (entry,) = prompts_of_rows(rows["a"], (40, 50))
    assert (entry.id, entry.name) == (1, "lumen")
    assert entry.frames == {3: Prompt((10, 2, 30, 20), ((15, 4),), (0,))}
    (entry,) = prompts_of_rows(rows["b"], (40, 50))
    assert entry.frames == {0: Prompt(None, ((1, 2),), (1,))}
    file.write_text(file.read_text().replace(",", ";"))  # as spreadsheets of many countries save it
    assert read_prompt_rows(file) == rows
    file.write_text("frame;x;y\n3;10,5;7,25\n")
    (entry,) = prompts_of_rows(read_prompt_rows(file)[""], (40, 50))
    assert entry.frames[3].points == ((10.5, 7.25),)
    file.write_text("sep=;\nframe;x;y;;\n;;;;\n3;10,5;7,25;;\n")
    assert prompts_of_rows(read_prompt_rows(file)[""], (40, 50)) == [entry]
    file.write_text("object,frame,x,y,label\n1.0,3.0,10.5,7.25,1.0\n")  # as pandas writes columns with gaps
    assert prompts_of_rows(read_prompt_rows(file)[""], (40, 50)) == [entry]
    file.write_bytes("frame,x,y,name\n0,1,2,B\xe4r\n".encode("latin-1"))
    with pytest.raises(PromptError, match="UTF-8"):
        read_prompt_rows(file)


@pytest.mark.parametrize(
    "text, words",
    [
        ("frame,x,y\n0,99,1\n", "outside the frame"),
        ("frame,x,y\n0,,1\n", "column x"),
        ("x,y\n1,1\n", "column frame"),
        ("frame,x,y\nnan,1,1\n", "column frame has 'nan': it should be a whole number"),
        ("frame,x,y\n1.5,1,1\n", "whole number"),
        ("frame,x,y\ninf,1,1\n", "whole number"),
        ("frame,colour\n0,red\n", "colour"),
        ("frame,x,y\n", "no line"),
        ("frame,x,y\n0,1,2,3\n", "line 2 has more values"),
        ("frame,x0,y0,x1,y1\n0,1,1,5,5\n0,2,2,6,6\n", "two boxes"),
    ],
)
def test_prompts_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(PromptError, match=words):
        prompts_of_rows(read_prompt_rows(tmp_path / "p.csv")[""], (40, 50))


def test_a_frame_that_is_no_number_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "loops.csv").write_text("loop,frame\na.tif,first\n")
    loops, (refused,) = find_loops(InputSettings(table=str(tmp_path / "loops.csv")), tmp_path / "out", "files")
    assert not loops
    assert refused.reason == "Line 2 of loops.csv: Its column 'frame' has 'first': it should be a whole number."


def test_a_chart_spans_what_it_is_told() -> None:
    svg = chart([Series("d", [(0, -5), (10, 5)], [2, 2], dots_only=True)], "x", "y", y_range=(-10, 10))
    assert "<polyline" not in svg
    heights = [float(value) for value in re.findall(r'cy="([\d.]+)"', svg)]
    top, bottom = 14, 300 - 42
    np.testing.assert_allclose(heights, [bottom - 0.25 * (bottom - top), bottom - 0.75 * (bottom - top)], atol=0.1)
    assert re.findall(r'anchor="end">([^<]+)<', svg) == ["-10", "-5", "0", "5", "10"]
