"""A data set of three images and the settings of a training that takes milliseconds a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64


def toy_manifest(folder: Path) -> Path:
    """A disc on a grey ground in three images of three subjects, two to train and one to validate."""
    lines = ["frames,masks,subject,part"]
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for number, part in enumerate(("train", "train", "val")):
        mask = (y - 32) ** 2 + (x - 24 - 8 * number) ** 2 <= 100
        for kind, pixels in (("images", 60 + 120 * mask), ("masks", 255 * mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{number}.png")
        lines.append(f"images/{number}.png,masks/{number}.png,s{number},{part}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def toy_settings(output: Path, manifest: Path, **run: Any) -> dict[str, Any]:
    """Settings of a fine-tuning of a light network with random weights."""
    return {
        "output": str(output),
        "model": {"base": None, "architecture": "uniultra-mini", "image_size": SIDE, "light_memory": True},
        "method": {"name": "decoder_only"},
        "data": {"manifests": [str(manifest)], "batch": 2, "workers": 0},
        "run": {"steps": 3, "device": "cpu", "log_every": 1, "threads": 1, **run},
    }
