"""DICOM stills and multi-frame loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import MPEGTransferSyntaxes

from napari_uniultra.core.types import Cine
from napari_uniultra.io.quiet import quiet_pydicom
from napari_uniultra.io.readers.dicom_display import Display, grey_display, palette_display
from napari_uniultra.io.readers.dicom_header import GREYS, damaged, syntax_name
from napari_uniultra.io.readers.dicom_stored import Stored, open_stored, video_frames_of
from napari_uniultra.io.readers.dicom_tags import frame_times, geometry
from napari_uniultra.io.readers.lazy import LazyFrames


def read_dicom(path: Path) -> Cine:
    """Open a DICOM still or loop; frames are decoded when they are looked at.

    Raises
    ------
    ReadError
        When the file is damaged, holds no picture, or is compressed in a way that cannot be decoded here.
    """
    with quiet_pydicom():
        return _read(path)


def _read(path: Path) -> Cine:
    name = path.name
    header, stored = open_stored(path)
    syntax = stored.syntax
    if syntax in MPEGTransferSyntaxes:
        frames = video_frames_of(stored, path)
    else:
        frames = _DicomFrames(stored, _display(header, stored, name))
    frames[0]  # a codec that cannot decode this file says so now, not in the middle of the work
    shape_hw = frames.shape[1:3]
    spacing, sector, spacing_remark = geometry(header, shape_hw)
    times, times_remark = frame_times(header, len(frames))
    remarks = {"spacing": spacing_remark, "frame_times": times_remark}
    return Cine(
        frames=frames,
        spacing_mm=spacing,
        frame_times_s=times,
        sector=sector,
        source=str(path),
        details={"format": "DICOM", "transfer_syntax": syntax_name(syntax)} | {k: v for k, v in remarks.items() if v},
    )


def _display(header: pydicom.Dataset, stored: Stored, name: str) -> Display:
    model, options = stored.colour_model, stored.options
    try:
        if model == "PALETTE COLOR":
            return palette_display(header, options["bits_allocated"])
        if model in GREYS:
            display = grey_display(header, stored.dtype, options["bits_stored"], model == "MONOCHROME1")
            display.shown(np.zeros((1, 1), stored.dtype))  # a damaged table says so now
            return display
    except Exception as error:  # a damaged table
        raise damaged(name, f"its colour or grey table cannot be used ({type(error).__name__})") from None
    return Display(stored.dtype, lambda pixels: pixels)


class _DicomFrames(LazyFrames):
    """The frames of a DICOM file."""

    def __init__(self, stored: Stored, display: Display) -> None:
        self._stored, self._display = stored, display
        is_palette = stored.colour_model == "PALETTE COLOR"
        super().__init__((*stored.shape, 3) if is_palette else stored.shape, display.dtype)

    def _decode(self, index: int) -> np.ndarray:
        with self._stored.decoding(index):
            return np.array(self._display.shown(self._stored.frame(index)[0]), dtype=self.dtype)
