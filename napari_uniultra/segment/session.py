"""A loop, a model, and everything the user does with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.palette import Colour, checked_colour
from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.core.prompts import checked_mask, checked_points, normalise_box
from napari_uniultra.core.types import MAX_OBJECT_ID, Cine, Direction, Prompt, Step, checked_spacing, default_name
from napari_uniultra.core.words import frames_in_words
from napari_uniultra.errors import PromptError, ReadError, UniUltraError
from napari_uniultra.segment.autosave import Autosave
from napari_uniultra.segment.engine import Engine
from napari_uniultra.segment.fallback import run_with_fallback
from napari_uniultra.segment.memory import MemoryLimits
from napari_uniultra.segment.passes import Pass, count_frames, plan_passes
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.session_about import LoopName, ModelName, SessionAbout
from napari_uniultra.segment.session_file import load_state, save_state
from napari_uniultra.segment.state import Key, SessionState, paint
from napari_uniultra.segment.tidy import ends_around, interpolated_results, put_results, tidied_results
from napari_uniultra.segment.work import Work

_log = logging.getLogger(__name__)

_MB = 1 << 20


class CineSession:
    """Segments the objects of one loop from prompts, and tracks them through it.

    Prompts belong to an object on a frame. They show on their frame at once, and condition the object's other frames
    when it is propagated. Nothing that a user made is lost: every change can be undone, results that were accepted
    are never rewritten, and an autosave brings all of it back after a crash.

    Methods that compute must be called from one thread at a time; results may be read from any thread.

    Parameters
    ----------
    cine : Cine
    model : Model or None
        As `load_model` gives it. None will do until something is to be computed.
    cache_bytes : int
        Limit of the kept frame embeddings, on the model's device.
    memory_bytes : int
        Limit of the kept memories, on the model's device.
    limits : MemoryLimits
        How many other frames a frame attends to.
    autosave : Path, optional
        File that is rewritten after every change. Where something else writes it meanwhile, another one beside it is.
    on_notice : callable, optional
        Is told in words what the user should know, such as that the session went on on the CPU.
    """

    def __init__(
        self,
        cine: Cine,
        model: Any,
        *,
        cache_bytes: int = 64 * _MB,
        memory_bytes: int = 48 * _MB,
        limits: MemoryLimits = MemoryLimits(),  # noqa: B008 - immutable
        autosave: Path | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.cine = cine
        self._on_notice = on_notice
        self._autosave = Autosave(autosave, self.save, self._notify)
        self._work = Work(self._autosave)
        self._engine = Engine(cine, model, cache_bytes, memory_bytes, limits)

    @property
    def _state(self) -> SessionState:
        return self._work.state

    @property
    def model(self) -> Any:
        """The loaded model. Setting another one keeps all prompts and results; it is used from then on."""
        return self._engine.model

    @model.setter
    def model(self, model: Any) -> None:
        self._engine.model = model

    @property
    def zoom(self) -> bool | None:
        """Whether small structures are tracked in close views that follow them.

        None, as at first, does so with models that were trained on close views (`ModelConfig.close_views`).
        """
        return self._engine.zoom

    @zoom.setter
    def zoom(self, zoom: bool | None) -> None:
        self._engine.zoom = zoom

    def free_memory(self) -> None:
        """Drop what is kept on the model's device for speed alone."""
        self._engine.free_memory()

    # Prompts --------------------------------------------------------------------------------------------------------

    @property
    def prompts(self) -> Mapping[Key, Prompt]:
        """(object id, frame) to the prompt there."""
        return dict(self._state.prompts)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order of their ids."""
        return tuple(sorted(self._state.names))

    @property
    def names(self) -> Mapping[int, str]:
        """Object id to its name."""
        return dict(self._state.names)

    @property
    def colours(self) -> Mapping[int, Colour]:
        """Object id to the colour that was chosen for it; the others have that of the palette."""
        return dict(self._state.colours)

    @property
    def locked_objects(self) -> frozenset[int]:
        """The objects that nothing may change."""
        return frozenset(self._state.locked_objects)

    @property
    def hidden_objects(self) -> frozenset[int]:
        """The objects that are not shown."""
        return frozenset(self._state.hidden_objects)

    def name_object(self, object_id: int, name: str) -> None:
        """Name an object; it is added if there is none with this id."""
        self.edit_object(object_id, name=name)

    def edit_object(
        self,
        object_id: int,
        *,
        name: str | None = None,
        colour: Colour | None = None,
        locked: bool | None = None,
        hidden: bool | None = None,
    ) -> None:
        """Give an object a name or a colour (red, green, blue), 0 to 255, lock or hide it; add it if it is not there.

        A locked object is not tracked, and no prompt changes it, until it is unlocked. A hidden one is only not shown.
        Raises PromptError if the colour is none.
        """
        colour = None if colour is None else checked_colour(colour)
        with self._work.change() as state:
            state.set_object(self._checked_id(object_id), name, colour, locked, hidden)

    def remove_object(self, object_id: int) -> None:
        """Remove an object with all its prompts and results. Raises PromptError if it is locked."""
        self._check_unlocked(object_id)
        with self._work.change() as state:
            state.remove_object(object_id)

    def add_box(self, object_id: int, frame: int, box: Sequence[float]) -> Step:
        """Draw a box (x0, y0, x1, y1) around an object, in pixels at pixel edges, in any direction.

        It replaces the box that was there; points stay. Returns the frame's new masks.
        """
        box, key = normalise_box(box, self.cine.shape_hw), self._editable(object_id, frame)
        before = self._prompt_before(key)
        return self._set(key, Prompt(box, before.points, before.labels, before.mask))

    def add_points(self, object_id: int, frame: int, points: Iterable[Sequence[float]], labels: Iterable[int]) -> Step:
        """Click points (x, y), in pixels at pixel edges; label 1 belongs to the object, 0 does not.

        They refine what earlier clicks and the box gave. Returns the frame's new masks.
        """
        points, labels = checked_points(points, self.cine.shape_hw), tuple(int(label) for label in labels)
        key = self._editable(object_id, frame)
        return self._set(key, self._prompt_before(key).with_round(points, labels))

    def add_mask(self, object_id: int, frame: int, mask: np.ndarray) -> Step:
        """Give an object's mask, (H, W) bool; it replaces the prompts that were there, and later clicks refine it."""
        return self.set_prompt(object_id, frame, Prompt(mask=checked_mask(mask, self.cine.shape_hw)))

    def mark_absent(self, object_id: int, frame: int) -> Step:
        """Say that an object is not in a frame: it has no mask there, and tracking remembers it as hidden."""
        return self.set_prompt(object_id, frame, Prompt(mask=np.zeros(self.cine.shape_hw, bool)))

    def set_prompt(self, object_id: int, frame: int, prompt: Prompt | None) -> Step:
        """Replace all prompts of an object on a frame; None or an empty prompt removes them.

        Points that continue those already there refine them; otherwise all count as given at once.

        Raises
        ------
        PromptError
            If the prompt does not fit the frame, or the frame was accepted. The session stays as it was.
        """
        key = self._editable(object_id, frame)
        if prompt is None or prompt.empty:
            return self._clear(key)
        mask = prompt.mask
        if mask is not None:
            mask = checked_mask(mask, self.cine.shape_hw, may_be_empty=prompt.mask_only)
        box = None if prompt.box is None else normalise_box(prompt.box, self.cine.shape_hw)
        points = checked_points(prompt.points, self.cine.shape_hw)
        asked, before = Prompt(box, points, prompt.labels, mask, prompt.rounds), self._prompt_before(key)
        if not asked.rounds and asked.extends(before):
            known = len(before.points)
            asked = before.with_round(points[known:], asked.labels[known:])
        return self._set(key, asked)

    @property
    def waiting(self) -> Mapping[Key, Prompt]:
        """(object id, frame) to what was asked for and waits for an answer; an empty prompt takes away what is there.

        It is saved with all else.
        """
        return dict(self._state.waiting)

    def ask(self, prompts: Mapping[Key, Prompt | None]) -> None:
        """Have prompts wait for `answer`, as where there may be no model yet; they are saved with the next change."""
        asked = {key: Prompt() if prompt is None else prompt for key, prompt in prompts.items()}
        self._work.wait({**self._state.waiting, **asked})

    def answer(self) -> dict[Key, UniUltraError]:
        """Set all prompts that wait, as one change. Returns those that cannot be used, and why; they wait no more.

        Raises
        ------
        UniUltraError
            If there is no model, or no room to compute. Whatever the error, what was not answered is saved, and waits.
        """
        self._check_model()
        errors: dict[Key, UniUltraError] = {}
        try:
            with self.one_change():
                for key, prompt in self.waiting.items():
                    try:
                        self.set_prompt(*key, prompt)
                    except (PromptError, ReadError) as error:
                        errors[key] = error
                    self._work.wait(_without(self._state.waiting, key))
        finally:
            if errors or self._state.waiting:
                self.keep()
        accepted = [key for key in errors if key in self._state.locked]
        return errors | (dict.fromkeys(accepted, accepted_error(accepted)) if accepted else {})

    def keep(self) -> None:
        """Save now, as where something waits for an answer that does not come."""
        self._work.save()

    def keep_in(self, path: Path) -> None:
        """Rewrite this file after every change from now on, in place of another one or of what is there."""
        self._autosave.move_to(path)

    def _editable(self, object_id: int, frame: int) -> Key:
        self.cine.frame(frame)
        key = self._checked_id(object_id), int(frame)
        if key in self._state.locked:
            raise accepted_error([key])
        self._check_unlocked(object_id)
        return key

    def _prompt_before(self, key: Key) -> Prompt:
        before = self._state.prompts.get(key, Prompt())
        return Prompt() if before.absent else before  # there is nothing that a box or clicks could refine

    def _check_unlocked(self, object_id: int) -> None:
        if object_id in self._state.locked_objects:
            name = self._state.names.get(object_id, default_name(object_id))
            raise PromptError(f"{name} is locked", fix="Unlock it to change it")

    def _set(self, key: Key, prompt: Prompt) -> Step:
        object_id, frame = key
        if prompt != self._state.prompts.get(key):
            result = self._compute(lambda: self._engine.answer(self._state, key, prompt))
            with self._work.change(made_with=ModelName.of(self.model)) as state:
                state.names.setdefault(object_id, default_name(object_id))
                state.prompts[key] = prompt
                state.prompted[key] = result
        return self.step(frame)

    def _clear(self, key: Key) -> Step:
        if key in self._state.prompts:
            with self._work.change() as state:
                del state.prompts[key], state.prompted[key]
        return self.step(key[1])

    @staticmethod
    def _checked_id(object_id: int) -> int:
        if not isinstance(object_id, (int, np.integer)) or not 1 <= object_id <= MAX_OBJECT_ID:
            fix = f"Use a whole number from 1 to {MAX_OBJECT_ID}"
            raise PromptError(f"{object_id!r} is not an object id", fix=fix)
        return int(object_id)

    # Results --------------------------------------------------------------------------------------------------------

    def step(self, frame: int) -> Step:
        """What is known of a frame, for all objects."""
        return self._state.step(frame)

    def labels(self, frame: int) -> np.ndarray:
        """A frame's masks as one label image (H, W) uint16; of overlapping objects the higher id is on top."""
        return paint(self._state.step(frame), self.cine.shape_hw)

    def scores(self, frame: int) -> dict[int, tuple[float, float]]:
        """Object id to (predicted IoU, object score) of what is known of a frame, without its masks; as in `Step`."""
        found = ((object_id, self._state.result((object_id, frame))) for object_id in self.object_ids)
        return {o: (result.predicted_iou, result.object_score) for o, result in found if result is not None}

    @property
    def masks(self) -> np.ndarray:
        """All masks as (T, H, W) uint16 labels; 0 where nothing is known."""
        return self._state.labels((len(self.cine), *self.cine.shape_hw))

    @property
    def frames_with_results(self) -> tuple[int, ...]:
        """Frames of which anything is known, in order."""
        return self._state.known_frames()

    def unfinished_frames(self, objects: Iterable[int] | None = None) -> frozenset[int]:
        """Frames of which some object that can be tracked is not known yet; raises what `propagate` raises."""
        known = {key for key, _ in self._state.results()}
        ids = self._objects_to_track(objects)
        return frozenset(f for f in range(len(self.cine)) if any((object_id, f) not in known for object_id in ids))

    def logits(self, object_id: int, frame: int) -> np.ndarray | None:
        """Mask logits (4s, 4s) float32 in the model's square, s = image_size / 16, or None where nothing is known.

        Where they were dropped to save memory, they come from the stored mask and are +-10.
        """
        key = (object_id, frame)
        if self._state.result(key) is None:
            return None
        return self._compute(lambda: self._engine.logits(self._state, key)).cpu().numpy()

    # Accepting ------------------------------------------------------------------------------------------------------

    @property
    def locked(self) -> frozenset[Key]:
        """The accepted (object id, frame)."""
        return frozenset(self._state.locked)

    def lock(self, frames: int | Iterable[int], objects: Iterable[int] | None = None) -> None:
        """Accept the results of some frames: they are never rewritten, and guide propagation as masks.

        Raises PromptError if there is no such frame.
        """
        with self._work.change() as state:
            state.lock(self._keys(frames, objects))

    def unlock(self, frames: int | Iterable[int], objects: Iterable[int] | None = None) -> None:
        """Take back that some frames were accepted; their results stay until they are propagated anew."""
        with self._work.change() as state:
            state.unlock(self._keys(frames, objects))

    def _keys(self, frames: int | Iterable[int], objects: Iterable[int] | None) -> list[Key]:
        frames = [frames] if isinstance(frames, (int, np.integer)) else list(frames)
        for frame in frames:
            self.cine.check_frame(frame)
        return [(object_id, int(frame)) for object_id in self._chosen(objects) for frame in frames]

    def _chosen(self, objects: Iterable[int] | None) -> Sequence[int]:
        return self.object_ids if objects is None else sorted({int(object_id) for object_id in objects})

    def _changeable(self, objects: Iterable[int] | None) -> Sequence[int]:
        """Those that are not locked, or those asked for. Raises PromptError if one of these is locked."""
        ids = self._chosen(objects)
        if objects is None:
            return [object_id for object_id in ids if object_id not in self._state.locked_objects]
        for object_id in ids:
            self._check_unlocked(object_id)
        return ids

    # Changing results without the model -----------------------------------------------------------------------------

    def tidy(self, settings: TidySettings, objects: Iterable[int] | None = None) -> frozenset[int]:
        """Tidy the results of some objects, all by default; what was painted or accepted stays. Returns the frames."""
        return self._rewrite(tidied_results(self._state, settings, self._chosen(objects)))

    def preview_tidy(self, settings: TidySettings, frame: int, objects: Iterable[int] | None = None) -> np.ndarray:
        """A frame's labels (H, W) uint16 as they would be after `tidy`; nothing changes."""
        found = tidied_results(self._state, settings, self._chosen(objects), range(frame, frame + 1))
        return paint(put_results(self._state.copy(), found).step(frame), self.cine.shape_hw)

    def interpolate(self, frame: int, objects: Iterable[int] | None = None) -> frozenset[int]:
        """Fill the frames around ``frame`` with masks between those that were given or accepted on either side.

        For stretches that tracking does not get right. What was given or accepted stays, and so do locked objects.
        Returns the frames that changed.

        Raises
        ------
        PromptError
            When no object is known on both sides, or one that is asked for is locked.
        """
        results = {}
        for object_id in self._changeable(objects):
            between = ends_around(self._state, object_id, frame)
            if between is not None:
                results |= interpolated_results(self._state, object_id, *between)
        if not results:
            fix = "Mark the structure, or accept it, on a frame before and on one after"
            raise PromptError(f"Frame {frame} lies between no two frames with a structure that you gave", fix=fix)
        return self._rewrite(results)

    def _rewrite(self, results: dict[Key, Result]) -> frozenset[int]:
        with self._work.change() as state:
            put_results(state, results)
        return frozenset(frame for _, frame in results)

    # Measuring ------------------------------------------------------------------------------------------------------

    @property
    def markers(self) -> Markers:
        """Heart cycles and long axes that were set by hand."""
        return Markers(dict(self._state.cycles), dict(self._state.axes))

    def set_markers(self, markers: Markers) -> None:
        """Replace the markers."""
        with self._work.change(cycles=dict(markers.cycles), axes=dict(markers.axes)):
            pass

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """Size of a pixel (row, column) in mm, where it was set by hand; the loop itself keeps its own."""
        return self._state.spacing_mm

    def set_spacing(self, spacing_mm: tuple[float, float]) -> None:
        """Keep a scale that was set by hand with the work. It may be undone as any change."""
        with self._work.change(spacing_mm=checked_spacing(spacing_mm)):
            pass

    @property
    def made_with(self) -> ModelName | None:
        """The model of the latest results; of results from a file, the one that they were made with."""
        return self._state.made_with

    # Propagation ----------------------------------------------------------------------------------------------------

    def propagate(
        self,
        direction: Direction = "forward",
        *,
        start: int | None = None,
        stop: int | None = None,
        objects: Iterable[int] | None = None,
    ) -> Iterator[Step]:
        """Track objects through the loop, one finished frame at a time.

        Closing the iterator keeps the finished frames; calling again goes on from any frame. Frames with prompts and
        accepted frames are passed on as they are.

        Parameters
        ----------
        direction : {"forward", "backward", "both"}
            "both" goes forward and then backward from the first frame with prompts.
        start, stop : int, optional
            First and last frame to visit, in the direction of travel, both included; for "both" the ends of the range.
            By default from the first frame with prompts to the end, or the beginning, of the loop.
        objects : iterable of int, optional
            All objects that have prompts and are not locked, by default.

        Raises
        ------
        PromptError
            At once, if no such object has a prompt, one that is asked for is locked, or a frame or direction does not
            exist.
        """
        passes = self.passes(direction, start=start, stop=stop, objects=objects)
        return self.run_passes(passes, objects=objects)

    def passes(
        self,
        direction: Direction = "forward",
        *,
        start: int | None = None,
        stop: int | None = None,
        objects: Iterable[int] | None = None,
    ) -> list[Pass]:
        """The frames that `propagate` would visit; raises what it raises."""
        ids = self._objects_to_track(objects)
        for frame in (start, stop):
            if frame is not None:
                self.cine.frame(frame)
        seeds = sorted(set().union(*(self._state.conditioning_frames(object_id) for object_id in ids)))
        return plan_passes(direction, start, stop, seeds, len(self.cine))

    def run_passes(self, passes: Iterable[Pass], *, objects: Iterable[int] | None = None) -> Iterator[Step]:
        """Propagate over passes, or over what is left of them, as one change; see `propagate`."""
        return self._run_passes(list(passes), self._objects_to_track(objects))

    def frames_to_propagate(
        self,
        direction: Direction = "forward",
        *,
        start: int | None = None,
        stop: int | None = None,
        objects: Iterable[int] | None = None,
    ) -> int:
        """How many steps `propagate` will yield."""
        return count_frames(self.passes(direction, start=start, stop=stop, objects=objects))

    def _objects_to_track(self, objects: Iterable[int] | None) -> list[int]:
        with_prompts = self._state.seen_objects()
        ids = list(self._changeable(objects))
        if objects is None:
            ids = [object_id for object_id in ids if object_id in with_prompts]
            if with_prompts and not ids:
                raise PromptError("There is nothing to track: every object is locked", fix="Unlock one to track it")
        else:
            missing = [object_id for object_id in ids if object_id not in with_prompts]
            if missing:
                fix = "Draw a box or click on it on some frame first"
                raise PromptError(f"Object {missing[0]} has nothing to track from", fix=fix)
        if not ids:
            raise PromptError("There is nothing to track", fix="Draw a box around a structure, or click on it, first")
        return ids

    def _run_passes(self, passes: Sequence[Pass], ids: Sequence[int]) -> Iterator[Step]:
        visits = [(reverse, frame) for reverse, frames in passes for frame in frames]
        with self._work.growing_change() as take_in:
            for (reverse, frame), following in zip_longest(visits, [frame for _, frame in visits[1:]]):
                if following is not None:
                    self.cine.read_ahead(following)
                take_in(self._track(frame, ids, reverse, following), ModelName.of(self.model))
                yield self.step(frame)

    def _track(self, frame: int, ids: Sequence[int], reverse: bool, following: int | None) -> dict[Key, Result]:
        return self._compute(lambda: self._engine.track(self._state, frame, ids, reverse, following))

    # Computing ------------------------------------------------------------------------------------------------------

    def embed(self, frame: int) -> None:
        """Compute a frame's embedding ahead of its use."""
        self._compute(lambda: self._engine.embed(frame))

    def embed_around(self, frame: int) -> Iterator[int]:
        """See `Engine.embed_around`; nothing is tried again."""
        return self._engine.embed_around(frame)

    def _compute(self, work: Callable[[], Any]) -> Any:
        self._check_model()
        return run_with_fallback(self._engine, work, self._notify)

    def _check_model(self) -> None:
        if self.model is None:
            raise PromptError("There is no model to segment with", fix="Choose one; in Python, set session.model")

    def _notify(self, words: str) -> None:
        _log.warning(words)
        if self._on_notice is not None:
            self._on_notice(words)

    # History and files ----------------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return self._work.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to make again."""
        return self._work.can_redo

    def undo(self) -> frozenset[int]:
        """Take back the last change, such as a prompt, a name or a whole propagation; returns changed frames."""
        return self._work.undo()

    def redo(self) -> frozenset[int]:
        """Make the change again that was last taken back. Returns the changed frames."""
        return self._work.redo()

    def one_change(self) -> AbstractContextManager[None]:
        """Changes inside the block are undone together, and saved once."""
        return self._work.one_change()

    def save(self, path: str | Path, tables: Mapping[str, str] | None = None) -> None:
        """Write prompts, results, names, locks and markers to a file, atomically, and the name of their model.

        The file holds no images, no name of the loop's file and no patient data; names of objects are written as
        given.

        Parameters
        ----------
        path : path
        tables : mapping of str to str, optional
            File name, such as "measurements.csv", to text, for those who open the file without this program.

        Raises
        ------
        WriteError
            If it cannot be written; a file that was there before is untouched.
        """
        about = SessionAbout(LoopName.of(self.cine), self.made_with, tables or {})
        save_state(Path(path), self._state, about)

    def open(self, path: str | Path) -> frozenset[int]:
        """Go to what `save` wrote, for the same loop. What was there before is one `undo` away; what waits stays.

        Returns the frames that changed.

        Raises
        ------
        ReadError
            If the file is damaged or belongs to another loop; the session stays as it was.
        """
        changed = self._work.open(load_state(Path(path), self.cine))
        if Path(path) == self._autosave.path:  # which holds it already
            self._autosave.take_over()
        else:
            self.keep()
        return changed

    @classmethod
    def restore(cls, path: str | Path, cine: Cine, model: Any, **options: Any) -> CineSession:
        """Open what `save` wrote, for the same loop.

        Raises
        ------
        ReadError
            If the file is damaged or belongs to another loop.
        """
        session = cls(cine, model, **options)
        session.open(path)
        return session


def _without(prompts: Mapping[Key, Prompt], key: Key) -> dict[Key, Prompt]:
    return {other: prompt for other, prompt in prompts.items() if other != key}


def accepted_error(keys: Collection[Key]) -> PromptError:
    """Why nothing changes where objects were accepted on frames, said once for all of them."""
    frames, objects = {frame for _, frame in keys}, {object_id for object_id, _ in keys}
    was, them = ("was", "it") if len(frames) == 1 else ("were", "them")
    whom = "this object" if len(objects) == 1 else "these objects"
    what = f"{frames_in_words(frames)} {was} accepted for {whom}"
    return PromptError(what, fix=f"Press Accept frame (G) again to change {them}")
