"""The measurements of a loop's masks, kept up to date: what did not change is not measured again. No Qt, no napari."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from napari_uniultra.core.measure import Measurement, measure_labels, with_area_change
from napari_uniultra.core.types import Cine


class LoopMeasurements:
    """Measures label images frame by frame.

    Parameters
    ----------
    cine : Cine
        Gives spacing, times and scan area; its frames are not looked at.
    """

    def __init__(self, cine: Cine) -> None:
        self.cine = cine
        self._rows: dict[int, list[Measurement]] = {}
        self._digests: dict[int, int] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """End an `update` in another thread after the frame that it is at."""
        self._closed.set()

    def update(self, labels: Any) -> bool:
        """Measure the frames of ``labels`` (T, H, W) integer that changed since the last time; whether any did."""
        changed = False
        for frame in range(len(self.cine)):
            if self._closed.is_set():
                break
            image = np.array(labels[frame], order="C")  # as it is now: it may be painted in meanwhile
            digest = zlib.crc32(image)
            if self._digests.get(frame) != digest:
                self._rows[frame], self._digests[frame] = measure_labels(self.cine, frame, image), digest
                changed = True
        return changed

    def rows(self, names: Mapping[int, str] | None = None) -> list[Measurement]:
        """All rows, ordered by frame, then object."""
        names = names or {}
        rows = [row for _, rows in sorted(self._rows.items()) for row in rows]
        return with_area_change([replace(row, object_name=names.get(row.object_id, row.object_name)) for row in rows])
