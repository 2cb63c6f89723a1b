"""DDTI, thyroid nodules: images ``<case>_<number>.jpg`` and outlines in ``<case>.xml``.

In the XML a ``mark`` has the ``image``'s number and in ``svg`` a JSON list of regions with their ``points``. Some files
are cut off; their cases are left out. The nodules of an image get labels 1, 2 and so on.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.importers.found import Found, write_mask

TITLE = "DDTI: thyroid nodules (347 images of 299 cases; Pedraza et al., SIPAIM 2015)"
WHERE = "http://cimalab.intec.co/applications/thyroid/"
LICENCE = "open access for research, with citation; its page states no licence"

_MAX_XML_BYTES = 16 << 20


def read(folder: Path, out: Path | None = None) -> Found:
    """Cases of the folder of XML and JPEG files; masks are drawn under ``out``."""
    cases, left_out = [], []
    for path in sorted(folder.glob("*.xml"), key=lambda path: (len(path.stem), path.stem)):
        try:
            marks = _marks(path)
        except (ElementTree.ParseError, ValueError, KeyError, TypeError) as error:
            left_out.append((path.name, f"its outlines cannot be read: {error}"))
            continue
        for number, polygons in marks.items():
            image = folder / f"{path.stem}_{number}.jpg"
            if not image.is_file():
                left_out.append((image.name, f"{path.name} names it, but it is not there"))
            elif not polygons:
                left_out.append((image.name, f"{path.name} outlines nothing in it"))
            else:
                mask = write_mask(_drawn(image, polygons), out, image)
                cases.append(Case(f"ddti/{image.stem}", image, (mask,), subject=path.stem, source="ddti"))
    return Found(tuple(cases), tuple(left_out))


def _marks(path: Path) -> dict[str, list[list[tuple[float, float]]]]:
    """The polygons of each image, of all its marks, by its number."""
    if path.stat().st_size > _MAX_XML_BYTES:
        raise ValueError("it is far too large")
    text = path.read_text(encoding="utf-8", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can expand without end; these files use none
        raise ValueError("it declares entities")
    marks: dict[str, list[list[tuple[float, float]]]] = {}
    for mark in ElementTree.fromstring(text).iter("mark"):
        regions = json.loads(mark.findtext("svg") or "[]")
        polygons = [[(float(p["x"]), float(p["y"])) for p in region["points"]] for region in regions]
        number = (mark.findtext("image") or "").strip()
        if not number.isdecimal():  # it becomes a part of a file's name
            raise ValueError(f"{number!r} is not the number of an image")
        marks.setdefault(number, []).extend(polygon for polygon in polygons if len(polygon) >= 3)
    return marks


def _drawn(image: Path, polygons: list[list[tuple[float, float]]]) -> np.ndarray:
    with Image.open(image) as opened:
        canvas = Image.new("L", opened.size)
    for label, polygon in enumerate(polygons, 1):
        ImageDraw.Draw(canvas).polygon(polygon, fill=label, outline=label)
    return np.asarray(canvas)
