"""Videos: MP4, MOV, AVI and what else FFmpeg reads, with exact access to any frame and its presentation time."""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from napari_uniultra.core.types import Cine
from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers.lazy import LazyFrames, check_size
from napari_uniultra.io.readers.sidecar import read_sidecar


def read_video(path: Path) -> Cine:
    """Open a video as RGB frames, decoded when they are looked at.

    Spacing comes from a side-car file (`napari_uniultra.io.readers.sidecar`); so do times where it states them,
    else they are the video's presentation times.

    Raises
    ------
    ReadError
        When it is no video, is cut off, or needs a codec that is not there.
    """
    frames, times_s = video_frames(path)
    stated = read_sidecar(path, len(frames))
    stated.setdefault("frame_times_s", times_s)
    return Cine(frames=frames, source=str(path), details={"format": "video", "codec": frames.codec}, **stated)


def video_frames(path: Path, stream: BinaryIO | None = None) -> tuple[VideoFrames, np.ndarray]:
    """The frames of a video and their times.

    Parameters
    ----------
    path : Path
        For messages, and what is opened without ``stream``.
    stream : file, optional
        The video itself, where it lies within another file.

    Returns
    -------
    frames : VideoFrames
        (T, H, W, 3) uint8.
    times_s : ndarray
        (T,) seconds from the first frame.

    Raises
    ------
    ReadError
        When it is no video, is cut off, or needs a codec that is not there.
    """
    try:
        container = av.open(str(path) if stream is None else stream)
    except (av.FFmpegError, ValueError) as error:
        raise _unreadable(path, _words(error)) from error
    try:
        index = _index(container, path)
        return VideoFrames(path, container, index), index.times_s
    except BaseException:
        container.close()
        raise


@dataclass(frozen=True)
class _Index:
    """When each frame is shown, in presentation order, and which frames can be decoded without another.

    Attributes
    ----------
    stamps : list of int
        In the stream's time base.
    keyframes : list of int
        Positions in ``stamps``.
    seeks : list of int
        For each key frame the time at which it must be decoded, which is where it is looked for in the file.
    times_s : ndarray
        (T,) seconds from the first frame.
    counted : bool
        Whether frames must be told apart by counting from the first one, because their stamps are not to be trusted.
    """

    stamps: list[int]
    keyframes: list[int]
    seeks: list[int]
    times_s: np.ndarray
    counted: bool


def _index(container: av.container.InputContainer, path: Path) -> _Index:
    """Read through the packets without decoding them."""
    if not container.streams.video:
        raise _unreadable(path, "it holds no video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise _unreadable(path, "its codec is not known")
    check_size(path.name, max(1, stream.frames), stream.height, stream.width)
    stamps, keys = [], {}
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise _unreadable(path, "it is cut off or damaged")
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or packet.is_discard:
                continue
            stamps.append(stamp)
            if packet.is_keyframe:
                keys[stamp] = stamp if packet.dts is None else min(stamp, packet.dts)
    except av.FFmpegError as error:
        raise _unreadable(path, _words(error)) from error
    if not stamps:
        raise _unreadable(path, "it holds no frame")
    # MP4 and MOV count their frames exactly; other containers' headers may be estimates.
    if "mp4" in container.format.name and len(stamps) < stream.frames:
        raise _unreadable(path, f"it is cut off: {len(stamps):,} of {counted(stream.frames, 'frame')} are there")
    stamps = sorted(set(stamps))
    check_size(path.name, len(stamps), stream.height, stream.width)
    # AVI stores no presentation times. Where frames refer to others, those that FFmpeg works out may be out of order.
    by_count = container.format.name == "avi" and len(keys) < len(stamps)
    keyframes = [position for position, stamp in enumerate(stamps) if stamp in keys and not by_count] or [0]
    seeks = [keys.get(stamps[position], stamps[position]) for position in keyframes]
    times = (np.array(stamps, dtype=float) - stamps[0]) * float(stream.time_base)
    return _Index(stamps, keyframes, seeks, times, by_count)


class VideoFrames(LazyFrames):
    """Frames by number: goes back to the key frame before, decodes up to the one asked for, and keeps those between."""

    def __init__(self, path: Path, container: av.container.InputContainer, index: _Index) -> None:
        self._path, self._container, self._index = path, container, index
        self._stream = container.streams.video[0]
        self.codec = self._stream.codec_context.name
        self._stream.thread_type = "AUTO"
        self._position = {stamp: position for position, stamp in enumerate(index.stamps)}
        self._decoded = iter(())  # the frames that follow, in presentation order, as long as nobody jumps
        self._next = -1
        self._close = weakref.finalize(self, container.close)
        first = self._first_frame()
        super().__init__((len(index.stamps), *first.shape))
        self._keep(0, first)

    def _first_frame(self) -> np.ndarray:
        for position, frame in self._frames_from(0):
            if position == 0:
                return frame
        raise _unreadable(self._path, "its first frame cannot be decoded")

    def _decode(self, index: int) -> np.ndarray:
        before = max(0, bisect.bisect_right(self._index.keyframes, index) - 1)
        if self._index.keyframes[before] <= self._next <= index:
            frame = self._advance_to(index)
            if frame is not None:
                return frame
        for key in dict.fromkeys((before, max(0, before - 1), 0)):  # some files are indexed only roughly
            self._decoded = self._frames_from(key)
            frame = self._advance_to(index)
            if frame is not None:
                return frame
        raise _unreadable(self._path, f"its frame {index} cannot be decoded")

    def _advance_to(self, index: int) -> np.ndarray | None:
        """Decode up to a frame, keeping those before it; None when it does not come."""
        for position, frame in self._decoded:
            self._next = position + 1
            if position == index:
                return frame
            self._keep(position, frame)
            if position > index:
                break
        self._next = -1
        return None

    def _frames_from(self, key: int) -> Iterator[tuple[int, np.ndarray]]:
        """Decode from a key frame on, as (position, RGB frame)."""
        try:
            self._container.seek(self._index.seeks[key], stream=self._stream, backward=True)
            for number, frame in enumerate(self._container.decode(self._stream)):
                position = number if self._index.counted else self._position.get(frame.pts)
                if position is not None:
                    yield position, _upright(frame)
        except av.FFmpegError as error:
            raise _unreadable(self._path, _words(error)) from error


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """RGB pixels (H, W, 3) uint8, turned as the container asks for."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or type(error).__name__).lower()


def _unreadable(path: Path, why: str) -> ReadError:
    return ReadError(f"{path.name} cannot be read as a video", why, "Copy or export it again")
