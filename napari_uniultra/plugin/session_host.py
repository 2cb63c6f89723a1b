"""Model and session as the inference thread holds them, and the plain data it hands back. No Qt, no napari.

A `SessionHost` belongs to one thread: all its methods run there. torch is imported when a model is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_uniultra.core.measure import Markers
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import PromptError, UniUltraError
from napari_uniultra.plugin.asked import frames_shown, labels_shown, new_prompts, prompts_of_drawn, prompts_of_frame
from napari_uniultra.plugin.confidence import Score
from napari_uniultra.plugin.drawing import Drawn
from napari_uniultra.plugin.exports import export_masks, export_measurements
from napari_uniultra.plugin.layers import Key
from napari_uniultra.plugin.loop_session import LoopSession
from napari_uniultra.plugin.open_loops import OpenLoops
from napari_uniultra.plugin.outcomes import LoadedModel, ObjectEdit, OpenedLoop, OpenedSession, Outcome, Snapshot
from napari_uniultra.plugin.painting import Painted
from napari_uniultra.plugin.session_tables import session_tables
from napari_uniultra.plugin.track_plan import TrackPlan, TrackRequest
from napari_uniultra.segment.passes import only

if TYPE_CHECKING:
    from napari_uniultra.core.postprocess import TidySettings
    from napari_uniultra.segment.session import CineSession


class SessionHost:
    """One model, and of the loops that are open the one in use, with its session.

    Parameters
    ----------
    on_notice : callable
        Is told in words what the user should know. Called in the inference thread.
    """

    def __init__(self, on_notice: Callable[[str], None]) -> None:
        self._on_notice = on_notice
        self._wanted = ("", "auto")
        self._model: Any = None
        self._loops = OpenLoops(on_notice)
        self._own: LoopSession | None = None  # the one in use
        self._object_edits = 0

    # Loop and model -------------------------------------------------------------------------------------------------

    def open(self, cine: Cine, own: LoopSession | None = None) -> OpenedLoop:
        """Take another loop. The session in ``own`` goes on, where there is one and the loop is still the same."""
        self._put_aside()
        own = own or LoopSession()
        if not own.has_begun or own.cine.key != cine.key:
            own.begin(cine)
        else:
            own.session.model = self._model
        self._own = own
        self._loops.add(own)
        return OpenedLoop(self.everything() if own.has_begun else None, own.saved_work is not None)

    def forget(self, own: LoopSession) -> None:
        """Let go of a loop's session; its work stays saved."""
        if own is self._own:
            self._put_aside()
        self._loops.forget(own)

    def _put_aside(self) -> None:
        own, self._own = self._own, None
        if own is not None and own.session is not None:
            self._model = own.session.model or self._model  # it may have gone to the CPU
            own.put_aside()

    def use_model(self, name: str, device: str) -> LoadedModel:
        """Load a model. If that fails, the one in use so far stays, and the session with it.

        Raises
        ------
        UniUltraError
        """
        from napari_uniultra.model.device import where_it_runs  # imports torch
        from napari_uniultra.model.load import load_model

        session = self._session
        if self._model is None or self._wanted != (name, device):
            with self._keeping():
                self._model, self._wanted = load_model(name, device=device), (name, device)
            if session is not None:
                session.model = self._model
        elif session is not None and session.model is None:  # opened before any model was loaded
            session.model = self._model
        elif session is not None:
            self._model = session.model  # which goes to the CPU when a graphics card runs out of memory
        config = self._model.config
        return LoadedModel(self._model.name, where_it_runs(self._model.device), config.image_size, config.close_views)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Save what waits for a model if there is none to be had."""
        try:
            yield
        except UniUltraError:
            if self._own is not None and self._own.is_waiting:
                self._to_begin().keep()
            raise

    def release(self) -> None:
        """Let go of the model and of the loop in use, and of their memory. The sessions are kept, to go on with."""
        self._put_aside()
        self._model = None

    @property
    def _session(self) -> CineSession | None:
        """The session of the loop in use, if there is one yet."""
        return None if self._own is None else self._own.session

    def _opened(self) -> CineSession:
        own = self._own
        if own is None:
            raise PromptError("No loop is chosen", fix="Open an ultrasound loop and choose it under Loop")
        if own.session is None:
            from napari_uniultra.segment.session import CineSession

            own.session = CineSession(own.cine, self._model, autosave=own.path, on_notice=self._on_notice)
        return own.session

    def _to_begin(self) -> CineSession:
        """The session, for a change that may be its first."""
        session = self._opened()
        self._loops.take_place(self._own)
        return session

    def _to_change(self) -> CineSession:
        """The session, for a change of what is there; in one without work nothing changes, and nothing is saved."""
        session = self._opened()
        if self._own.has_begun:
            self._loops.take_place(self._own)
        return session

    # What the user does ---------------------------------------------------------------------------------------------

    def prepare(self, frame: int) -> None:
        """Embed a frame ahead of its first prompt."""
        self._opened().embed(frame)

    def prepare_around(self, frame: int) -> Iterator[int]:
        """Embed the frames around one, one at each step, if a model is in use. Raises what `CineSession` raises."""
        session = self._session
        if session is not None and session.model is not None:
            yield from session.embed_around(frame)

    # What is asked for waits in the session until `answer`, which needs a model, as asking does not.

    def ask(self, prompts: Mapping[Key, Prompt | None]) -> set[int]:
        """Ask for prompts; None takes away what is there. Returns the frames."""
        self._opened().ask(prompts)
        return {frame for _, frame in prompts}

    def ask_drawn(self, drawn: Mapping[Key, Drawn], number: int) -> set[int]:
        """Ask for what the user drew, or took away; ``number`` counts such changes of this loop."""
        frames = self.ask(prompts_of_drawn(self._opened(), drawn))
        self._own.mark_edits = number
        return frames

    def ask_painted(self, painted: Mapping[int, Painted]) -> set[int]:
        """Ask for what the user painted, by frame, as mask prompts; what was wiped off a frame is absent there."""
        for frame, own in painted.items():
            self.ask(prompts_of_frame(self._opened(), frame, own))
        return set(painted)

    def ask_left(self, drawn: Mapping[Key, Prompt], painted: Mapping[int, Painted], markers: Markers | None) -> Outcome:
        """Ask for what layers say that were left to the user, where that is not asked for already; take the markers."""
        self.ask_painted(painted)
        self.ask(new_prompts(self._opened(), drawn))
        if markers is not None and self._opened().names:
            self._to_begin().set_markers(markers)
        return self._outcome(painted)

    def answer(self, frames: Iterable[int] = ()) -> Outcome:
        """Answer what waits, as one change. What cannot be used is reported, the rest counts.

        The outcome has the frames of all that waited, and those given.
        """
        waiting = self._opened().waiting
        errors = self._to_begin().answer() if waiting else {}
        return self._outcome({*frames, *(frame for _, frame in waiting)}, errors=errors)

    def unanswered(self) -> Outcome:
        """What waits for an answer, with its frames."""
        return self._outcome({frame for _, frame in self._opened().waiting})

    def edit_objects(self, edits: Iterable[ObjectEdit], number: int) -> Outcome:
        """Change objects, as one change; ``number`` counts such jobs."""
        self._object_edits = number
        session = self._to_begin()
        before = set(session.frames_with_results)
        with session.one_change():
            for edit in edits:
                if not edit.removed:
                    session.edit_object(edit.object_id, **edit.changes)
                elif edit.object_id in {*session.names, *(object_id for object_id, _ in session.waiting)}:
                    session.remove_object(edit.object_id)
        return self._outcome(before if any(edit.removed for edit in edits) else ())

    def toggle_lock(self, frame: int) -> Outcome:
        """Accept all objects of a frame, or take that back where they are accepted.

        Raises
        ------
        PromptError
            If nothing is known of the frame yet.
        """
        session = self._to_change()
        known = set(session.step(frame).masks)
        if not known:
            raise PromptError(f"There is nothing on frame {frame} to accept", fix="Segment or track it first")
        if all((object_id, frame) in session.locked for object_id in known):
            session.unlock(frame)
        else:
            session.lock(frame)
        return self._outcome((frame,))

    def accept_all(self) -> Outcome:
        """Accept every result there is.

        Raises
        ------
        PromptError
            If there is none.
        """
        session = self._to_change()
        frames = session.frames_with_results
        if not frames:
            raise PromptError("There is nothing to accept", fix="Segment or track a structure first")
        session.lock(frames)
        return self._outcome(())

    def interpolate(self, frame: int) -> Outcome:
        """Fill the frames around one between those that were given or accepted.

        Raises
        ------
        PromptError
            If no object is known on both sides.
        """
        return self._outcome(self._to_change().interpolate(frame))

    def tidy(self, settings: TidySettings) -> Outcome:
        """Tidy all results but those that were painted or accepted."""
        return self._outcome(self._to_change().tidy(settings))

    def preview_tidy(self, settings: TidySettings, frame: int) -> np.ndarray:
        """What `tidy` would make of a frame: its labels (H, W) uint16."""
        return self._opened().preview_tidy(settings, frame)

    def export_masks(self, path: str, cine: Cine) -> None:
        """See `exports.export_masks`."""
        export_masks(self._opened(), path, cine)

    def export_measurements(self, path: str, cine: Cine) -> None:
        """See `exports.export_measurements`."""
        export_measurements(self._opened(), path, cine)

    def undo(self) -> Outcome:
        """Take back the last change."""
        return self._outcome(self._to_change().undo())

    def redo(self) -> Outcome:
        """Make the change again that was last taken back."""
        return self._outcome(self._to_change().redo())

    def restore(self) -> Outcome:
        """Bring back the work that was saved for this loop before the present session began; no model is needed.

        Raises
        ------
        UniUltraError
            If the file is damaged; the session stays as it was.
        """
        own = self._own
        if own is None or own.saved_work is None:
            raise PromptError("There is no saved work for this loop")
        self._opened()
        self._loops.restore(own)
        return self.everything()

    def save_session(self, path: Path, cine: Cine) -> None:
        """Write all that was made to a session file, and what it measures.

        ``cine`` is as for `exports.export_masks`.

        Raises
        ------
        PromptError, WriteError
            If there is nothing to save, or the file cannot be written.
        """
        session = self._opened()
        if not session.names and not session.waiting:
            raise PromptError("There is nothing to save yet", fix="Mark a structure first")
        session.save(path, session_tables(session, cine))

    def open_session(self, path: Path) -> OpenedSession:
        """Go to what a session file holds; no model is needed. What was there before is one undo away.

        Raises
        ------
        ReadError
            If the file is damaged or belongs to another loop; the session stays as it was.
        """
        from napari_uniultra.model.catalogue import list_models

        session = self._to_begin()
        session.open(path)
        made_with = session.made_with
        wanted = "" if made_with is None else made_with.sha256
        here = [info.name for info in list_models() if info.sha256 == wanted and info.path is not None]
        in_use = self._model is not None and self._model.sha256 == wanted
        is_here = made_with is None or in_use or bool(here)
        return OpenedSession(self.everything(), made_with, "" if in_use or not here else here[0], is_here)

    def set_markers(self, own: LoopSession, markers: Markers) -> Outcome:
        """Take over the cycles and axes that were set by hand on a loop, whether it is in use or not."""
        in_use, self._own = self._own, own
        try:
            self._to_begin().set_markers(markers)
            return self._outcome(())
        finally:
            self._own = in_use

    def set_spacing(self, spacing_mm: tuple[float, float]) -> Outcome:
        """Take over a scale that was set by hand."""
        session = self._to_begin()
        session.set_spacing(spacing_mm)
        return self._outcome(())

    def everything(self) -> Outcome:
        """All masks there are."""
        return self._outcome(frames_shown(self._opened()), everything=True)

    def plan(self, request: TrackRequest) -> TrackPlan:
        """The frames to track, starting from the nearest frame on which the user said something.

        Forward that is the last such frame up to the one shown, backward the first such frame from there on; where
        there is none, or it lies outside the range, the range's own beginning or the first such frame.

        Raises
        ------
        PromptError
            If no object that is asked for has a prompt.
        """
        session, low, high = self._opened(), request.low, request.high
        said = {frame for object_id, frame in (*session.prompts, *session.locked) if request.concerns(object_id)}
        if request.direction == "both":
            start, stop = low, high
        else:
            start, stop = request.ends(said)
        passes = session.passes(request.direction, start=start, stop=stop, objects=request.objects)
        return TrackPlan(tuple(passes), request.objects, request.zoom)

    def plan_unfinished(self, request: TrackRequest) -> TrackPlan:
        """The frames of the range of which something is not known yet. Raises what `plan` raises."""
        session = self._opened()
        passes = session.passes("both", start=request.low, stop=request.high, objects=request.objects)
        return TrackPlan(only(passes, session.unfinished_frames(request.objects)), request.objects, request.zoom)

    def track(self, plan: TrackPlan) -> Iterator[Outcome]:
        """Track over the frames of a plan, one outcome for each. Raises what `plan` raises."""
        session = self._to_change()
        session.zoom = plan.zoom
        with closing(session.run_passes(plan.passes, objects=plan.objects)) as propagation:
            for step in propagation:
                yield self._outcome((step.frame,))

    def _outcome(self, frames: Any, **fields: Any) -> Outcome:
        session = self._session
        snapshot = Snapshot(
            prompts=dict(session.prompts),
            waiting=dict(session.waiting),
            locked=session.locked,
            names=dict(session.names),
            colours=dict(session.colours),
            locked_objects=session.locked_objects,
            hidden_objects=session.hidden_objects,
            object_edits=self._object_edits,
            mark_edits=self._own.mark_edits,
            markers=session.markers,
            spacing_mm=session.spacing_mm,
            can_undo=session.can_undo,
            can_redo=session.can_redo,
        )
        scores = {frame: {o: Score(*both) for o, both in session.scores(frame).items()} for frame in frames}
        return Outcome(snapshot, {frame: labels_shown(session, frame) for frame in frames}, scores=scores, **fields)
