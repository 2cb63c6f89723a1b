"""Annotated frames of a manifest's cases, read when first needed and kept up to a limit in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from napari_uniultra.training.data.cases import Annotated, Case, OpenCase

_OPEN_CASES = 64  # cases whose list of frames is kept, with a video's open file


class FrameStore:
    """Frames by case and number, stretched to a square.

    Parameters
    ----------
    cases : sequence of Case
    side : int
        Of the kept frames, in pixels.
    limit_bytes : int
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
        return self._open(case).frames

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
        while self._bytes > self.limit_bytes and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return annotated

    def _open(self, case: int) -> OpenCase:
        if case not in self._opened:
            self._opened[case] = OpenCase(self.cases[case])
        self._opened.move_to_end(case)
        while len(self._opened) > _OPEN_CASES:
            self._opened.popitem(last=False)
        return self._opened[case]


def _size(annotated: Annotated) -> int:
    return annotated.image.nbytes + annotated.masks.nbytes
