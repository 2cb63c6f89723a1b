"""Stored DICOM values to what is shown: palettes, the modality and VOI transformations, inverted greys (PS3.3 C.11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut

from napari_uniultra.io.readers.dicom_tags import numbers_of, value_of

PALETTE_ELEMENTS = [
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
]
GREY_ELEMENTS = [
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "VOILUTFunction",
    "WindowCenter", "WindowWidth", "PresentationLUTShape",
]  # fmt: skip

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Display:
    """How decoded values become a picture.

    Attributes
    ----------
    dtype : dtype
        Of the picture. Where the file says which values are black and white it is uint8; where it does not, the stored
        values are passed on, and `Cine` maps them by their range over the loop.
    shown : callable
        Decoded values (H, W) or (H, W, 3) to the picture.
    """

    dtype: np.dtype
    shown: Transform


def palette_display(header: pydicom.Dataset, bits: int) -> Display:
    """Colours by table; raises whatever pydicom does when the table cannot be used."""
    values = np.arange(1 << bits, dtype=f"uint{bits}")
    table = apply_color_lut(values, header)[:, :3]
    # Entries of 16 bits hold the colour in their high byte; some writers put 8-bit values into them unshifted.
    table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
    return Display(np.dtype(np.uint8), lambda pixels: table[np.minimum(pixels, len(table) - 1)])


def grey_display(header: pydicom.Dataset, dtype: np.dtype, bits_stored: int, inverted: bool) -> Display:
    """Greys through the transformations that the header states.

    Pictures of 8 bits are passed on as stored: their window, if any, only chooses a brightness, and would lose values.
    """
    if dtype.kind == "u" and bits_stored <= 8:
        white = dtype.type((1 << bits_stored) - 1)
        return Display(dtype, (lambda pixels: white - np.minimum(pixels, white)) if inverted else _unchanged)
    inverted ^= value_of(header, "PresentationLUTShape") == "INVERSE"
    modality, voi = _modality(header), _voi(header)
    if voi is not None:
        return Display(np.dtype(np.uint8), lambda pixels: _inverted(voi(modality(pixels)), inverted))
    if modality is _unchanged:
        # Without a window the complement within the stored bits is as good as any other inverse, and exact.
        white = dtype.type((1 << bits_stored) - 1) if dtype.kind == "u" else None
        return Display(dtype, (lambda pixels: _complement(pixels, white)) if inverted else _unchanged)
    return Display(np.dtype(np.float32), lambda pixels: (-1 if inverted else 1) * modality(pixels).astype(np.float32))


def _unchanged(pixels: np.ndarray) -> np.ndarray:
    return pixels


def _inverted(pixels: np.ndarray, inverted: bool) -> np.ndarray:
    return 255 - pixels if inverted else pixels


def _complement(pixels: np.ndarray, white: np.generic | None) -> np.ndarray:
    if pixels.dtype.kind == "f":
        return -pixels
    return ~pixels if white is None else ~pixels & white


def _modality(header: pydicom.Dataset) -> Transform:
    """Stored values to the modality's (PS3.3 C.11.1)."""
    if value_of(header, "ModalityLUTSequence"):
        table, first, _ = _table(header, header.ModalityLUTSequence[0])
        return lambda pixels: _looked_up(pixels, table, first)
    slope, intercept = numbers_of(header, "RescaleSlope"), numbers_of(header, "RescaleIntercept")
    if len(slope) != 1 or len(intercept) != 1 or slope[0] == 0 or (slope[0] == 1 and intercept[0] == 0):
        return _unchanged
    return lambda pixels: pixels * slope[0] + intercept[0]


def _voi(header: pydicom.Dataset) -> Transform | None:
    """The modality's values to 0-255 (PS3.3 C.11.2): by the first table, else by the first window."""
    if value_of(header, "VOILUTSequence"):
        table, first, top = _table(header, header.VOILUTSequence[0])
        return lambda pixels: _to_bytes(_looked_up(pixels, table, first) / top)
    centre, width = numbers_of(header, "WindowCenter"), numbers_of(header, "WindowWidth")
    if not len(centre) or not len(width):
        return None
    return _window(float(centre[0]), float(width[0]), value_of(header, "VOILUTFunction") or "LINEAR")


def _table(header: pydicom.Dataset, item: pydicom.Dataset) -> tuple[np.ndarray, int, int]:
    """Entries, the value that the first one is for, and the greatest entry that its bits allow."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        wide = len(data) >= 2 * (count or 1 << 16)
        order = "<" if header.original_encoding[1] is not False else ">"
        data = np.frombuffer(data, f"{order}u2" if wide else "u1")
    table = np.asarray(data)[: count or 1 << 16].astype(np.int32)
    if not len(table) or not 1 <= bits <= 16:
        raise ValueError("an empty table")
    return table, first, (1 << bits) - 1


def _looked_up(pixels: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    return table[np.clip(np.rint(pixels).astype(np.int64) - first, 0, len(table) - 1)]


def _window(centre: float, width: float, function: str) -> Transform | None:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3; None for a width that the standard forbids."""
    if function == "SIGMOID" and width > 0:
        return lambda pixels: _to_bytes(1 / (1 + np.exp(np.clip(-4 * (pixels - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT" and width > 0:
        return lambda pixels: _to_bytes((pixels - centre) / width + 0.5)
    if function != "LINEAR" or width < 1:
        return None
    if width == 1:
        return lambda pixels: _to_bytes((pixels > centre - 0.5).astype(float))
    return lambda pixels: _to_bytes((pixels - (centre - 0.5)) / (width - 1) + 0.5)


def _to_bytes(share: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(np.nan_to_num(share), 0, 1) * 255).astype(np.uint8)
