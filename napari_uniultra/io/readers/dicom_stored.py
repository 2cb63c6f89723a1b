"""Where and how a DICOM file keeps its pictures, and each of them as it is stored."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MPEGTransferSyntaxes,
)

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import dicom_codecs as codecs
from napari_uniultra.io.readers.dicom_header import damaged, opener, pixel_options, read_header, syntax_name
from napari_uniultra.io.readers.lazy import LazyFrames

_PIXEL_DATA = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_BITS = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")  # JPEG, JPEG-LS, JPEG 2000

Fragment = tuple[int, int]  # (position in the file, length)


def stored_frames(path: Path) -> Iterator[tuple[np.ndarray, str]]:
    """Each frame's pixels, (H, W) or (H, W, 3), and their colour model, before anything is done to show them.

    They are what `read_dicom` begins with: colours stay in the model of the file where its decoder leaves them there,
    and a video gives RGB. To be used within `quiet_pydicom`.

    Raises
    ------
    ReadError
        As `read_dicom`, and when a frame is damaged.
    """
    _, stored = open_stored(path)
    if stored.syntax in MPEGTransferSyntaxes:
        frames = video_frames_of(stored, path)
        yield from ((frames[index], "RGB") for index in range(len(frames)))
    else:
        for index in range(stored.shape[0]):
            with stored.decoding(index):
                frame = stored.frame(index, raw=True)
            yield frame


@dataclass(frozen=True)
class Stored:
    """Where and how a file keeps its pictures.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    open : callable
        Opens the file, or what was inflated of it.
    syntax : UID
    options : dict
        The Image Pixel module, as pydicom's decoders take it.
    start : int
        Position of the value of the pixel data.
    frames : tuple of tuple of (int, int), or None
        Of compressed pictures, the fragments of each frame.
    """

    name: str
    open: Callable[[], BinaryIO]
    syntax: UID
    options: dict[str, Any]
    start: int
    frames: tuple[tuple[Fragment, ...], ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3)."""
        shape = tuple(int(self.options[key]) for key in ("number_of_frames", "rows", "columns"))
        return shape if self.options["samples_per_pixel"] == 1 else (*shape, 3)

    @property
    def dtype(self) -> np.dtype:
        """Of the stored values."""
        kinds = {"FloatPixelData": "f", "DoubleFloatPixelData": "f"}
        kind = kinds.get(self.options["pixel_keyword"], "ui"[self.options["pixel_representation"]])
        return np.dtype(f"{kind}{max(1, self.options['bits_allocated'] // 8)}")

    @property
    def colour_model(self) -> str:
        """Of the stored values, as the file says."""
        return str(self.options["photometric_interpretation"])

    def frame(self, index: int, raw: bool = False) -> tuple[np.ndarray, str]:
        """A frame's pixels and their colour model: grey, palette or RGB, or ``raw``, whichever the decoder gives."""
        pixels, model = self._native(index, raw) if self.frames is None else self._compressed(index, raw)
        return pixels, "YBR_FULL" if model == "YBR_FULL_422" else model  # decoders give every pixel its colour

    @contextmanager
    def decoding(self, index: int) -> Iterator[None]:
        """Say which frame could not be decoded, and what it is: each codec has its own exceptions for damaged data."""
        try:
            yield
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(
                f"Frame {index} of {self.name} cannot be decoded",
                f"its {syntax_name(self.syntax)} data is damaged, or of a kind that no installed decoder reads",
                "Export it again, uncompressed or as JPEG",
            ) from error

    def _native(self, index: int, raw: bool) -> tuple[np.ndarray, str]:
        with self.open() as file:
            file.seek(self.start)
            pixels, model = self._by_pydicom(self.syntax, file, index, raw, self.options, validate=index == 0)
        if self.options["bits_allocated"] == 1:
            pixels = pixels * np.uint8(255)
        return pixels.astype(self.dtype, copy=False), model

    def _compressed(self, index: int, raw: bool) -> tuple[np.ndarray, str]:
        with self.open() as file:
            data = b"".join(_at(file, fragment) for fragment in self.frames[index])
        syntax, one, shape = self.syntax, self.options | {"number_of_frames": 1}, self.shape[1:]
        if syntax in codecs.JPEG_XL:
            return codecs.jpeg_xl(data, shape, self.dtype), "RGB" if len(shape) == 3 else self.colour_model
        if syntax in codecs.NEW_SYNTAXES:
            if syntax == codecs.DEFLATED_FRAMES:
                data = codecs.inflated(data, _native_bytes(one))
            one |= {"transfer_syntax_uid": ExplicitVRLittleEndian}
            return self._by_pydicom(ExplicitVRLittleEndian, data, 0, raw, one)
        codecs.check_stated_size(self.name, index, data, *shape[:2])
        if codecs.is_plain_jpeg(syntax, one["bits_stored"]):
            pixels, model = codecs.jpeg(data, shape, self.dtype), self.colour_model
            if raw or not model.startswith("YBR_FULL"):
                return pixels, model
            return convert_color_space(pixels, model, "RGB"), "RGB"
        source, plugin = encapsulate([data], has_bot=False), codecs.pydicom_plugin(syntax)
        try:
            return self._by_pydicom(syntax, source, 0, raw, one, decoding_plugin=plugin)
        except Exception:
            if syntax not in codecs.HIGH_THROUGHPUT:
                raise
            model = "RGB" if self.colour_model in ("YBR_ICT", "YBR_RCT") else self.colour_model
            return codecs.jpeg_2000(data, shape, self.dtype), model

    @staticmethod
    def _by_pydicom(
        syntax: UID, source: Any, index: int, raw: bool, options: dict[str, Any], **how: Any
    ) -> tuple[np.ndarray, str]:
        pixels, found = get_decoder(syntax).as_array(source, index=index, raw=raw, **options, **how)
        return pixels, str(found["photometric_interpretation"])


def open_stored(path: Path) -> tuple[pydicom.Dataset, Stored]:
    """The header of a file, and where and how it keeps its pictures.

    Raises
    ------
    ReadError
        When the file is damaged, or holds no picture.
    """
    open_ = opener(path)
    with open_() as file:
        header, syntax = read_header(file, path.name)
        return header, _stored(open_, file, header, syntax, path.name)


def video_frames_of(stored: Stored, path: Path) -> LazyFrames:
    """The frames of an MPEG or HEVC stream; only these files need the video library.

    Raises
    ------
    ReadError
        When the stream is damaged, or its pictures have another size than the file says.
    """
    from napari_uniultra.io.readers.video import video_frames

    with stored.open() as file:
        stream = io.BytesIO(b"".join(_at(file, fragment) for fragment in stored.frames[0]))
    frames, _ = video_frames(path, stream)
    if frames.shape[1:3] != stored.shape[1:3]:
        raise damaged(path.name, "its pictures have another size than it states")
    return frames


def _stored(open_: Callable[[], BinaryIO], file: BinaryIO, header: Any, syntax: UID, name: str) -> Stored:
    """Checked description of the pixel data, at whose element ``file`` is."""
    options = pixel_options(header, syntax, name)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    head = file.read(8)
    if len(head) < 8:
        raise damaged(name, "it ends before its picture")
    group, element, length = struct.unpack(f"{order}HHL", head)
    keyword = _PIXEL_DATA.get((group << 16) + element)
    if keyword is None:
        raise ReadError(f"{name} holds no picture", "it has no pixel data", "Choose an image or a loop")
    options["pixel_keyword"] = keyword
    if options["bits_allocated"] not in _BITS[keyword]:
        allowed = ", ".join(map(str, _BITS[keyword]))
        why = f"its pixels have {options['bits_allocated']} bits; {allowed} can be read"
        raise ReadError(f"{name} cannot be read", why)
    if syntax != ImplicitVRLittleEndian:
        options["pixel_vr"] = head[4:6].decode("latin-1")
        (length,) = struct.unpack(f"{order}L", file.read(4).ljust(4, b"\0"))
    start, end = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(start)
    if syntax in codecs.NEW_SYNTAXES or syntax.is_compressed:
        fragments, offsets = _fragments(file, end, name)
        if syntax in MPEGTransferSyntaxes:
            return Stored(name, open_, syntax, options, start, (fragments,))
        frames = _grouped(file, fragments, offsets, options["number_of_frames"])
        if frames is None:
            stated, held = options["number_of_frames"], len(fragments)
            raise damaged(name, f"it states {counted(stated, 'frame')} but holds {held:,}")
        return Stored(name, open_, syntax, options, start, frames)
    needed = _native_bytes(options)
    if length == _UNDEFINED_LENGTH or needed > min(length, end - start):
        raise damaged(name, f"it holds {max(0, end - start)} of {needed} bytes of its picture")
    return Stored(name, open_, syntax, options, start, None)


def _native_bytes(options: dict[str, Any]) -> int:
    halved = options["photometric_interpretation"] == "YBR_FULL_422"
    samples = 2 if halved else options["samples_per_pixel"]
    values = options["number_of_frames"] * options["rows"] * options["columns"] * samples
    return (values * options["bits_allocated"] + 7) // 8


def _fragments(file: BinaryIO, end: int, name: str) -> tuple[tuple[Fragment, ...], tuple[int, ...]]:
    """Walk the compressed fragments, so that a cut file is found now and any frame is found at once later.

    Returns
    -------
    fragments : tuple of (int, int)
    offsets : tuple of int
        The basic offset table: where each frame's first fragment begins, or nothing.
    """
    fragments, table = [], b""
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise damaged(name, "it ends in the middle of its pictures")
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == _SEQUENCE_END:
            break
        if (group, element) != _ITEM or length > end - file.tell():
            raise damaged(name, "it ends in the middle of its pictures, or they are damaged")
        fragments.append((file.tell(), length))
        if len(fragments) == 1:
            table = file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)
    return tuple(fragments[1:]), struct.unpack(f"<{len(table) // 4}L", table[: len(table) // 4 * 4])


def _grouped(
    file: BinaryIO, fragments: tuple[Fragment, ...], offsets: tuple[int, ...], frames: int
) -> tuple[tuple[Fragment, ...], ...] | None:
    """The fragments of each frame: one each, or as the offset table or the first bytes of a frame tell; else None."""
    if len(fragments) == frames:
        return tuple((fragment,) for fragment in fragments)
    if frames == 1 and fragments:
        return (fragments,)
    if len(fragments) < frames:
        return None
    origin = fragments[0][0]
    begins = {origin + offset for offset in offsets}
    if len(begins) != frames or not begins <= {at for at, _ in fragments}:
        begins = {at for at, _ in fragments if _starts_a_frame(file, at)}
    if len(begins) != frames or origin not in begins:
        return None
    groups: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment[0] in begins:
            groups.append([])
        groups[-1].append(fragment)
    return tuple(map(tuple, groups))


def _starts_a_frame(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    return file.read(12).startswith(_FRAME_STARTS)


def _at(file: BinaryIO, fragment: Fragment) -> bytes:
    file.seek(fragment[0])
    return file.read(fragment[1])
