"""Compressed DICOM frames that pydicom does not decode, and the size that a compressed frame says it has."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from napari_uniultra.errors import ReadError

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")
JPEG_XL = {
    UID("1.2.840.10008.1.2.4.110"): "JPEG XL Lossless",
    UID("1.2.840.10008.1.2.4.111"): "JPEG XL JPEG Recompression",
    UID("1.2.840.10008.1.2.4.112"): "JPEG XL",
}
HIGH_THROUGHPUT = {HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL}
# Explicit VR Little Endian with frames in fragments; pydicom does not know these names yet.
NEW_SYNTAXES = JPEG_XL | {
    ENCAPSULATED_UNCOMPRESSED: "Encapsulated Uncompressed Explicit VR Little Endian",
    DEFLATED_FRAMES: "Deflated Image Frame Compression",
}
# GDCM comes first in pydicom's own order. It ends the whole program at some damaged JPEGs (a C++ exception that nobody
# catches), and there is another decoder for each of its syntaxes.
_PLUGINS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    RLELossless: "pylibjpeg",
}
_J2K_START = b"\xff\x4f\xff\x51"
_SOF_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # frame headers of JPEG and JPEG-LS


def pydicom_plugin(syntax: UID) -> str:
    """Which of pydicom's decoders to take; "" leaves it to pydicom. See `is_plain_jpeg` before."""
    return _PLUGINS.get(syntax, "")


def is_plain_jpeg(syntax: UID, bits_stored: int) -> bool:
    """Whether it is a kind of JPEG for which `jpeg` stands in: without loss, or of 12 bits."""
    return syntax in (JPEGLossless, JPEGLosslessSV1) or (syntax == JPEGExtended12Bit and bits_stored > 8)


def jpeg(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A JPEG frame of up to 16 bits as an array of ``shape``; of which colours, the file says, not the frame."""
    import imagecodecs

    if len(shape) == 2:
        return _fitting(imagecodecs.jpeg8_decode(data), shape, dtype)
    return _jpeg_apart(data, shape, dtype)


def _jpeg_apart(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A JPEG of colours without loss, decoded in another process.

    libjpeg-turbo gets some of these wrong, and the decoder that does not may crash when the data is damaged.
    """
    code = (
        "import sys, imagecodecs; "
        "sys.stdout.buffer.write(imagecodecs.jpegsof3_decode(sys.stdin.buffer.read()).tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60, check=True)
    return _fitting(np.frombuffer(done.stdout, dtype), shape, dtype)


def inflated(data: bytes, limit: int) -> bytes:
    """A deflated frame, but never more than ``limit`` bytes of it."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)


def jpeg_xl(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A JPEG XL frame as an array of ``shape``; colours come as RGB."""
    import imagecodecs

    return _fitting(imagecodecs.jpegxl_decode(data), shape, dtype)


def jpeg_2000(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A JPEG 2000 frame, high-throughput or not, as an array of ``shape``."""
    import imagecodecs

    return _fitting(imagecodecs.jpeg2k_decode(data), shape, dtype)


def _fitting(pixels: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if pixels.size != int(np.prod(shape)) or pixels.dtype.itemsize > dtype.itemsize:
        raise ValueError(f"a frame of {pixels.shape} {pixels.dtype} instead of {shape} {dtype}")
    return pixels.reshape(shape).astype(dtype)


def check_stated_size(name: str, index: int, data: bytes, rows: int, columns: int) -> None:
    """Compare the size in a frame's own header with the file's, before a decoder sets memory aside for it.

    Raises
    ------
    ReadError
        When they differ.
    """
    stated = _jpeg_2000_size(data) or _jpeg_size(data)
    if stated is not None and stated != (rows, columns):
        raise ReadError(
            f"Frame {index} of {name} cannot be decoded",
            f"its compressed data is {stated[1]} x {stated[0]} pixels instead of {columns} x {rows}",
            "Copy or export it again",
        )


def _jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG 2000 code stream, with or without the boxes of a file around it."""
    start = data.find(_J2K_START, 0, 4096)
    if start < 0 or len(data) < start + 24:
        return None
    width, height, left, top = (int.from_bytes(data[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return height - top, width - left


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG or JPEG-LS stream."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _SOF_MARKERS:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 + length
    return None
