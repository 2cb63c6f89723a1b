"""Annotated frames of a manifest's cases, read when first needed and kept up to a limit in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from napari_uniultra.training.data.cases import Annotated, Case, OpenCase

_OPEN_CASES = 64  # at most: each may hold a video's open file
_OPEN_SHARE = 0.5  # of the bytes, for what open cases have read


class FrameStore:
    """Frames by case and number, stretched to a square.

    Parameters
    ----------
    cases : sequence of Case
    side : int
        Of the kept frames, in pixels.
    limit_bytes : int
        Of the kept frames and of what open cases have read: masks of whole loops, decoded frames. A single case or
        frame that is larger is kept while it is the last one.
    """

    def __init__(self, cases: Sequence[Case], side: int, limit_bytes: int) -> None:
        self.cases, self.side, self.limit_bytes = tuple(cases), side, limit_bytes
        self._opened: OrderedDict[int, OpenCase] = OrderedDict()
        self._kept: OrderedDict[tuple[int, int], Annotated] = OrderedDict()
        self._bytes = 0

    def frames(self, case: int) -> tuple[int, ...]:
        """The numbers of a case's annotated frames.

        Raises
        ------
        ReadError
        """
        frames = self._open(case).frames
        self._make_room()
        return frames

    def get(self, case: int, frame: int) -> Annotated:
        """One annotated frame.

        Raises
        ------
        ReadError
        """
        key = case, frame
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        annotated = self._open(case).annotated(frame, self.side)
        self._kept[key] = annotated
        self._bytes += _size(annotated)
        self._make_room()
        return annotated

    def _open(self, case: int) -> OpenCase:
        if case not in self._opened:
            self._opened[case] = OpenCase(self.cases[case])
        self._opened.move_to_end(case)
        return self._opened[case]

    def _make_room(self) -> None:
        """Close cases, then forget frames, those first that were not used for longest."""
        read = sum(opened.nbytes for opened in self._opened.values())
        while len(self._opened) > 1 and (len(self._opened) > _OPEN_CASES or read > _OPEN_SHARE * self.limit_bytes):
            read -= self._opened.popitem(last=False)[1].nbytes
        while len(self._kept) > 1 and self._bytes + read > self.limit_bytes:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(annotated: Annotated) -> int:
    return annotated.image.nbytes + annotated.masks.nbytes
