"""What the store of annotated frames keeps in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_uniultra.training.data.cases import Case
from napari_uniultra.training.data.store import FrameStore


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_masks_and_frames_of_whole_loops_count_as_memory(dtype: str, tmp_path: Path) -> None:
    labels = np.zeros((40, 200, 250), np.uint8)
    labels[:, 50:100, 50:100] = 1
    tifffile.imwrite(tmp_path / "loop.tif", (labels + np.arange(40)[:, None, None]).astype(dtype), compression="zlib")
    tifffile.imwrite(tmp_path / "masks.tif", labels, compression="zlib")
    cases = [Case(f"{number}", tmp_path / "loop.tif", (tmp_path / "masks.tif",)) for number in range(12)]
    limit = 5 * labels.nbytes
    store = FrameStore(cases, 64, limit)
    tracemalloc.start()
    try:
        for case in range(len(cases)):
            for frame in store.frames(case)[::2]:
                assert store.get(case, frame).masks.any()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert labels.nbytes < kept < limit
    tracked = FrameStore(cases, 64, 1)  # less than a single case takes
    assert [tracked.get(case, 3).frame for case in (0, 1, 0)] == [3, 3, 3]
