"""A folder of annotated stills and loops with its own split, as this project's makers keep their data.

``splits.json`` lists cases under ``train``, ``val`` and ``test``. A still is ``still/<set>/images/<name>``, with its
mask of the same name under ``masks/``; a loop is ``cine/<set>_<name>`` with ``frames/`` or ``video.mp4``, and
``masks/`` with a file for each annotated frame, named as the frame or by its number. Pixel sizes stand in
``meta.json`` of a loop, or in a CSV file of a still set with the columns ``file`` and ``mm_per_px``. In palette masks
of stills every connected part of a label is a structure; in grey ones everything bright is one.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from napari_uniultra.core.csv_table import has_columns
from napari_uniultra.errors import ReadError
from napari_uniultra.training.data.cases import PARTS, Case
from napari_uniultra.training.data.importers.found import Found, pixel_sizes

TITLE = "a folder with still/, cine/ and a splits.json"
WHERE = "your own data"
LICENCE = "as you received them"

SPLIT = "splits.json"
_COLUMNS = "file", "mm_per_px"  # of tables of pixel sizes


def read(folder: Path, _out: Path | None = None) -> Found:
    """The cases of the split.

    Raises
    ------
    ReadError
        When the split or a table of pixel sizes cannot be read, or an image, a still's mask, or a loop is not there.
    """
    path = folder / SPLIT
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        listed = [(part, str(name)) for part in PARTS for name in split.get(part, ())]
    except OSError as error:
        fix = f"Name a manifest, or a folder with a {SPLIT}"
        raise ReadError(f"The split {path} cannot be read", error.strerror or "", fix) from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ReadError(f"The split {path} cannot be read", str(error), f"Name a folder with a {SPLIT}") from error
    spacings: dict[Path, dict[str, float]] = {}
    cases, left_out = [], []
    for part, name in listed:
        if name.startswith("still/"):
            cases.append(_still(folder, name, part, spacings))
        elif (folder / name / "masks").is_dir():
            cases.append(_loop(folder, name, part))
        else:
            left_out.append((name, "it has no masks"))
    return Found(tuple(cases), tuple(left_out))


def _still(folder: Path, name: str, part: str, spacings: dict[Path, dict[str, float]]) -> Case:
    image = folder / name
    group = image.parent.parent
    mask = group / "masks" / image.name
    if not image.is_file():
        raise _absent(f"The image {name}")
    try:
        with Image.open(mask) as opened:
            is_palette = opened.mode == "P"
    except OSError as error:
        raise ReadError(f"The mask of {name} cannot be read", error.strerror or "it is damaged") from error
    if group not in spacings:
        tables = [path for path in sorted(group.glob("*.csv")) if path.is_file() and has_columns(path, _COLUMNS)]
        spacings[group] = {key: value for table in tables for key, value in pixel_sizes(table, *_COLUMNS).items()}
    size = spacings[group].get(image.name)
    return Case(
        name=name,
        frames=image,
        masks=(mask,),
        source=group.name,
        spacing_mm=(size, size) if size else None,
        part=part,
        separate=is_palette,
    )


def _loop(folder: Path, name: str, part: str) -> Case:
    path = folder / name
    frames = path / "frames" if (path / "frames").is_dir() else path / "video.mp4"
    if not frames.exists():
        raise _absent(f"The loop {name}")
    return Case(name=name, frames=frames, masks=(path / "masks",), source=path.name.partition("_")[0], part=part)


def _absent(what: str) -> ReadError:
    return ReadError(f"{what} is not there", f"{SPLIT} names it", f"Copy it again, or take it out of {SPLIT}")
