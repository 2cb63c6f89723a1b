"""Tidied and filled-in results of a session, computed from its state without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from napari_uniultra.core.interpolate import interpolate_masks
from napari_uniultra.core.postprocess import TidySettings, tidy_masks
from napari_uniultra.segment.results import PackedMask, Result
from napari_uniultra.segment.state import Key, SessionState


def given_by_hand(state: SessionState, key: Key) -> bool:
    """Whether a person painted or accepted a mask, or locked its object: nothing rewrites it."""
    prompt = state.prompts.get(key)
    return key in state.locked or key[0] in state.locked_objects or (prompt is not None and prompt.mask_only)


def tidied_results(
    state: SessionState, settings: TidySettings, objects: Iterable[int], frames: range | None = None
) -> dict[Key, Result]:
    """The results that tidying changes; what was given by hand takes part in smoothing, but stays.

    Parameters
    ----------
    frames : range, optional
        Frames that are wanted, all by default.
    """
    changed = {}
    for object_id in objects:
        results = {frame: result for (other, frame), result in state.results() if other == object_id}
        for frame, mask in _tidied_masks(results, settings, frames):
            key, result = (object_id, frame), results[frame]
            if not given_by_hand(state, key) and not np.array_equal(mask, result.mask.unpack()):
                changed[key] = replace(result, mask=PackedMask.pack(mask))
    return changed


def _tidied_masks(
    results: dict[int, Result], settings: TidySettings, wanted: range | None
) -> Iterator[tuple[int, np.ndarray]]:
    frames, reach = sorted(results), settings.reach_frames
    if wanted is not None:
        frames = [frame for frame in frames if wanted.start - reach <= frame < wanted.stop + reach]
    for frame, mask in tidy_masks(lambda frame: results[frame].mask.unpack(), frames, settings):
        if wanted is None or frame in wanted:
            yield frame, mask


def put_results(state: SessionState, results: dict[Key, Result]) -> SessionState:
    """Put results in the place of those of the model, in the state itself; returns it."""
    for key, result in results.items():
        (state.prompted if key in state.prompted else state.tracked)[key] = result
    return state


def ends_around(state: SessionState, object_id: int, frame: int) -> tuple[int, int] | None:
    """The frames before and after one between which nothing was given or accepted of an object, which is seen on both.

    None where there are none, such as on a frame that was given itself, or after one on which the object is absent.
    """
    known = state.conditioning_frames(object_id)
    ends = max((k for k in known if k < frame), default=None), min((k for k in known if k > frame), default=None)
    if frame in known or None in ends or not all(state.result((object_id, end)).mask for end in ends):
        return None
    return ends


def interpolated_results(state: SessionState, object_id: int, first: int, last: int) -> dict[Key, Result]:
    """Results of an object on the frames between two on which it is known; see `core.interpolate`."""
    ends = [state.result((object_id, frame)) for frame in (first, last)]
    masks = [result.mask.unpack() for result in ends]
    found = {}
    for frame in range(first + 1, last):
        share = (frame - first) / (last - first)
        found[object_id, frame] = Result(
            mask=PackedMask.pack(interpolate_masks(*masks, share)),
            predicted_iou=None,
            object_score=min(result.object_score for result in ends),
            pointer=((1 - share) * ends[0].pointer + share * ends[1].pointer).astype(np.float32),
        )
    return found
