"""DICOM segmentations as other tools write them."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.pixels import pack_bits


def without_empty_frames(path: Path) -> Path:
    """Take the frames that show nothing out of a DICOM segmentation, as it may be stored."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    kept = [number for number, frame in enumerate(pixels) if frame.any()]
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [groups[number] for number in kept]
    dataset.NumberOfFrames = len(kept)
    dataset.PixelData = pack_bits(pixels[kept], pad=True)
    dataset.save_as(path)
    return path
