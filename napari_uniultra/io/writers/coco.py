"""Masks as COCO's annotation file, with run-length encoded masks that pycocotools reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_length

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.masks import Masks
from napari_uniultra.io.writers.frames import check_json, class_names, frame_name

_DESCRIPTION = "Segmentation of an ultrasound loop"


def write_coco(path: str | os.PathLike[str], masks: Masks) -> None:
    """Write one annotation per object and frame. Another JSON file, such as the side-car of a loop, is not replaced.

    Images are numbered from 1, ``frame`` has the frame's own number and ``file_name`` is that of `write_png`. A
    category is a name; objects of the same name share it, and ``object_id`` tells them apart.

    Raises
    ------
    WriteError
        When there is a JSON file of another kind, or the disk refuses.
    """
    check_json(Path(path), _is_coco, "the masks")
    categories = {name: number for number, name in enumerate(class_names(masks), start=1)}
    content = {
        "info": {"description": _DESCRIPTION, "spacing_mm": masks.spacing_mm},
        "images": [_image(masks, frame) for frame in range(len(masks))],
        "annotations": [
            {"id": number, **annotation} for number, annotation in enumerate(_annotations(masks, categories), start=1)
        ],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_coco(content: dict[str, Any]) -> bool:
    """Whether it is what `write_coco` writes."""
    info = content.get("info")
    return isinstance(info, dict) and info.get("description") == _DESCRIPTION and "annotations" in content


def _image(masks: Masks, frame: int) -> dict[str, Any]:
    height, width = masks.shape_hw
    image = {"id": frame + 1, "file_name": frame_name(frame, "png"), "width": width, "height": height, "frame": frame}
    if masks.frame_times_s is not None:
        image["time_s"] = float(masks.frame_times_s[frame])
    return image


def _annotations(masks: Masks, categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    for frame, labels in enumerate(masks.labels):
        for object_id in np.unique(labels[labels != 0]).tolist():
            encoded = run_length.encode(np.asfortranarray(labels == object_id, dtype=np.uint8))
            yield {
                "image_id": frame + 1,
                "category_id": categories[masks.name(object_id)],
                "object_id": object_id,
                "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                "area": int(run_length.area(encoded)),
                "bbox": run_length.toBbox(encoded).tolist(),
                "iscrowd": 0,
            }
