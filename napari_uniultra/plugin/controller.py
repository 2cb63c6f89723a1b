"""Between the viewer and the session: what is drawn becomes jobs for the inference thread, what comes back is shown.

No widgets. Everything here runs in the GUI thread; the `SessionHost` is only touched inside the jobs. The controller
holds loop, model and jobs; its parts, `Marks`, `Objects`, `Tracker`, `Review` and `Navigator`, are what the user
does with them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin import left_behind
from napari_uniultra.plugin.ahead import Ahead
from napari_uniultra.plugin.image_layer import TRANSFORM, shown_frame, shows_loop
from napari_uniultra.plugin.jobs import Jobs
from napari_uniultra.plugin.layers import cine_of_layer
from napari_uniultra.plugin.loop_scale import LoopScale
from napari_uniultra.plugin.marks import Marks
from napari_uniultra.plugin.navigator import Navigator
from napari_uniultra.plugin.objects import Objects
from napari_uniultra.plugin.outcomes import LoadedModel, OpenedLoop, Outcome, Snapshot
from napari_uniultra.plugin.prompt_layers import PromptLayers
from napari_uniultra.plugin.result_layer import ResultLayer
from napari_uniultra.plugin.review import Review
from napari_uniultra.plugin.session_files import SessionFiles
from napari_uniultra.plugin.session_host import SessionHost
from napari_uniultra.plugin.tracker import Tracker
from napari_uniultra.plugin.workspace import Workspace


class SegmentController(QObject):
    """Drives one session from a napari viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    jobs : Jobs
        The inference thread.

    Attributes
    ----------
    marks, objects, tracker, review, navigator
        What the user does.
    work : Workspace or None
        Of the image layer in use.
    host : SessionHost
        For use inside of jobs only.
    model : (str, str)
        Name and device of the model that is used from the next job on.
    restorable : bool
        Whether there is saved work for this loop that was not restored yet.
    """

    status_changed = Signal(str)
    noticed = Signal(str)  # something the user should see, in words
    failed = Signal(object)  # an exception
    scores_changed = Signal(object)  # the frames
    changed = Signal()  # objects, undo, locks, tracking, what can be restored
    model_loaded = Signal(object)  # LoadedModel
    image_wanted = Signal(object)  # the image layer that the user turned to, when another one is in use

    _notice_from_host = Signal(str)

    def __init__(self, viewer: Any, jobs: Jobs) -> None:
        super().__init__()
        self.viewer, self.jobs = viewer, jobs
        self._notice_from_host.connect(self.noticed)
        self.host = SessionHost(self._notice_from_host.emit)
        self.model = ("", "auto")
        self._loaded, self._told_of_model = False, ""
        self._workspaces: list[Workspace] = []
        self.work: Workspace | None = None
        self.restorable = False
        self.marks, self.objects, self.tracker, self.review = Marks(self), Objects(self), Tracker(self), Review(self)
        self.navigator, self.ahead = Navigator(self), Ahead(self)
        self.files = SessionFiles(self, viewer)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        viewer.layers.selection.events.active.connect(self._on_active)
        self.changed.connect(self._dress)

    # State for the panel --------------------------------------------------------------------------------------------

    @property
    def image(self) -> Any:
        """The image layer in use, or None."""
        return None if self.work is None else self.work.image

    @property
    def busy(self) -> bool:
        """Whether anything that was asked for has not been answered yet."""
        return self.tracker.running or self.marks.waiting or self.jobs.busy

    @property
    def snapshot(self) -> Snapshot:
        """What is known of the session."""
        return Snapshot() if self.work is None else self.work.snapshot

    @property
    def frame(self) -> int:
        """The frame that is shown."""
        return 0 if self.work is None else shown_frame(self.viewer, self.work.image)

    @property
    def shows_loop(self) -> bool:
        """Whether a frame of the loop is shown: the slider may be beyond it."""
        return self.work is not None and shows_loop(self.viewer, self.work.image)

    @property
    def layers(self) -> list[Any]:
        """The layers of ours that exist for this image."""
        return [] if self.work is None else self.work.layers

    # Image and model ------------------------------------------------------------------------------------------------

    def set_image(self, layer: Any) -> None:
        """Work on an image layer, or on none. Coming back to one goes on where it was left."""
        if self.work is not None and layer is not None and layer == self.work.image:
            return
        self._leave()
        if layer is not None:
            self._enter(layer)
        self.changed.emit()

    def _leave(self) -> None:
        self.ahead.stop()
        self.tracker.cancel()
        self.marks.sync(wait=False)
        self.marks.put_away()
        if self.work is not None:
            self._connect_image(self.work.image, connect=False)
        self.work, self.restorable = None, False

    def _enter(self, layer: Any) -> None:
        try:
            cine = cine_of_layer(layer)
        except UniUltraError as error:
            self.say(str(error))
            self.failed.emit(error)
            return
        work = next((known for known in self._workspaces if known.image == layer), None)
        is_known = work is not None and bool(work.snapshot.names or work.snapshot.spacing_mm)
        if work is None:
            on_tool = partial(self._on_tool, layer)
            work = Workspace(
                layer,
                PromptLayers(self.viewer, layer, partial(self._on_edit, layer, drawn=True), on_tool),
                ResultLayer(self.viewer, layer, partial(self._on_edit, layer), on_tool),
                LoopScale(self.viewer, layer, self._on_scale),
            )
            work.result.on_markers, work.result.on_lost = self._on_markers, self._on_masks_lost
            self._workspaces.append(work)
        work.prompts.exact = self.marks.outlines_as_masks
        self.work = work
        if not is_known:
            work.scale.take_as_own()
        self._connect_image(layer, connect=True)
        left = left_behind.take_aside(self.viewer, layer, work.layers)
        self.submit(lambda: self.host.open(cine, work.session), self._opened)
        left_behind.go_on(self, left)
        self.marks.send_again()

    def _opened(self, opened: OpenedLoop) -> None:
        self.restorable = opened.has_saved_work
        if opened.outcome is not None:
            self.review.show_other_state(opened.outcome)
        else:
            self.say("There is saved work for this loop" if self.restorable else "Draw a box around a structure")
            self.changed.emit()

    def _connect_image(self, layer: Any, connect: bool) -> None:
        for name in TRANSFORM:
            emitter = getattr(layer.events, name)
            (emitter.connect if connect else emitter.disconnect)(self._on_transform)
        self.work.scale.connect(connect)
        (layer.events.data.connect if connect else layer.events.data.disconnect)(self._on_image_data)

    def _on_transform(self, event: Any = None) -> None:
        if self.work is not None:
            self.work.prompts.follow_image()
            self.work.result.follow_image()

    def _on_markers(self, result: ResultLayer) -> None:
        """Beats or axes were set by hand on masks, as in the panel "Measure": they belong to their session."""
        work = next((known for known in self._workspaces if known.result is result), None)
        if work is not None and work.snapshot.names:
            markers, done = result.markers, self.show if work is self.work else _drop
            self.submit(lambda: self.host.set_markers(work.session, markers), done, key=f"markers {id(work)}")

    def _on_scale(self, spacing_mm: tuple[float, float]) -> None:
        """Somebody set the scale: it belongs to the work on the loop, and can be undone."""
        self.submit(lambda: self.host.set_spacing(spacing_mm), self.show)

    def _on_image_data(self, event: Any = None) -> None:
        """The layer now holds another loop: begin anew; the work on the old one is saved under that one's content."""
        layer = self.image
        self._leave()
        self._forget(layer)
        self._enter(layer)
        self.changed.emit()

    def set_model(self, name: str, device: str) -> None:
        """Use another model from the next job on. Prompts and masks stay."""
        if (name, device) == self.model:
            return
        self.model, self._told_of_model = (name, device), ""
        if not self.marks.send_again() and self._loaded:
            self._load_model()

    def _load_model(self) -> None:
        self.say(f"Loading {self.model[0]}")
        self.submit(lambda: None, lambda _: self.say("Ready"), with_model=True, key="load", lasting=False)

    def prepare_frame(self) -> None:
        """Have model and frame ready before the first mark."""
        frame = self.frame
        self.say("Ready", loading_first=True)
        self.submit(lambda: self.host.prepare(frame), _drop, with_model=True, key="prepare", lasting=False)

    # Words ----------------------------------------------------------------------------------------------------------

    def say(self, words: str, loading_first: bool = False) -> None:
        """Tell what is being done; with ``loading_first``, that the model is being loaded, as long as it is not."""
        loading = loading_first and not self._loaded
        self.status_changed.emit(f"Loading {self.model[0]}" if loading else words)

    def work_or_word(self) -> Workspace | None:
        """The workspace in use; without one the user is told why nothing happens."""
        if self.work is None:
            self.noticed.emit("There is no loop to work on. Open an ultrasound loop, or choose its layer under Loop.")
        return self.work

    def work_on_frame_or_word(self) -> Workspace | None:
        """The workspace in use while a frame of its loop is shown; else the user is told why nothing happens."""
        work = self.work_or_word()
        if work is None or self.shows_loop:
            return work
        self.noticed.emit(f"{work.image.name} ends at frame {work.num_frames - 1}. Go to one of its frames first.")
        return None

    def _dress(self) -> None:
        """Names, colours and what is hidden, to the layers."""
        if self.work is not None:
            colours = {own.object_id: own.colour for own in self.objects.all}
            hidden = [own.object_id for own in self.objects.all if own.hidden]
            self.work.prompts.dress(colours, hidden)
            self.work.result.dress(self.objects.names, colours, hidden)

    # Jobs -----------------------------------------------------------------------------------------------------------

    def submit(
        self,
        work: Callable[..., Any],
        done: Callable[[Any], None],
        with_model: bool = False,
        key: str | None = None,
        lasting: bool = True,
        first: Callable[[], Any] | None = None,
    ) -> None:
        """Run a job; what comes back after the user went to another image is dropped: it is in that one's session.

        What comes ``first`` is done before a model is loaded; ``work`` is given what it returns. Without a model,
        ``done`` is given what then waits in place of what ``work`` returns. A job that is not ``lasting`` is for the
        eye alone, or for speed: closing the window leaves it out.
        """
        workspace, model = self.work, self.model

        def job() -> tuple[LoadedModel | UniUltraError | None, Any]:
            given = () if first is None else (first(),)
            try:
                info = self.host.use_model(*model) if with_model else None
            except UniUltraError as error:
                return error, self.host.unanswered() if given else None
            return info, work(*given)

        def finished(result: tuple[LoadedModel | UniUltraError | None, Any]) -> None:
            info, value = result
            is_done = not isinstance(info, UniUltraError)
            if is_done and info is not None:
                self.note_model(info)
            if workspace == self.work and (is_done or first is not None):
                done(value)
            if not is_done:
                self._model_failed(info)

        self.jobs.submit(job, finished, self._job_failed, key=key, lasting=lasting)

    def _job_failed(self, error: Exception) -> None:
        self.say("That did not work; everything else is as it was")
        self.failed.emit(error)
        self.changed.emit()

    def _model_failed(self, error: UniUltraError) -> None:
        """No model can be used, which is told once, however many jobs find out."""
        self.say("There is no model to use; marks wait for one")
        if str(error) != self._told_of_model:
            self._told_of_model = str(error)
            self.failed.emit(error)
        self.changed.emit()

    def note_model(self, info: LoadedModel) -> None:
        """A model was loaded, or was there already."""
        if not self._loaded:
            self.say("Ready")
        self._loaded, self._told_of_model = True, ""
        self.model_loaded.emit(info)

    def show(self, outcome: Outcome, quiet: bool = False) -> None:
        """Show what a job changed; ``quiet`` says nothing of it, as for each of many frames."""
        work = self.work
        before, work.snapshot = work.snapshot, outcome.snapshot
        self.objects.follow(outcome.snapshot)
        if before.spacing_mm != outcome.snapshot.spacing_mm:
            work.scale.show(outcome.snapshot.spacing_mm)
        is_new = work.result.layer is None
        if is_new and self.tracker.cancelled:
            return  # the masks were deleted while tracking: they do not come back by themselves
        work.result.write(outcome.labels, outcome.everything, unsent=work.pending_paint)
        self.scores_changed.emit(work.confidence.update(outcome.scores, outcome.everything))
        if before.markers != outcome.snapshot.markers:
            work.result.set_markers(outcome.snapshot.markers)
        if is_new and work.result.layer is not None and not outcome.everything:
            self.show_everything()
        if not quiet:
            self.say("Ready")
            self.changed.emit()

    def show_everything(self) -> None:
        """Show all masks there are, as in a layer that was just made."""
        self.submit(self.host.everything, self.show, key="everything", lasting=False)

    # Layers that come, change and go --------------------------------------------------------------------------------

    def _turn_to(self, image: Any) -> None:
        """Somebody works in the layers of another loop than the one in use: that loop is used from now on."""
        if image != self.image and image in self.viewer.layers:
            self.image_wanted.emit(image)

    def _on_edit(self, image: Any, drawn: bool = False) -> None:
        self._turn_to(image)
        if image == self.image:
            self.marks.edited(drawn)

    def _on_tool(self, image: Any) -> None:
        if any(work.has_tool for work in self._workspaces if work.image == image):
            self._turn_to(image)
        self.marks.tool_changed()

    def _forget(self, image: Any) -> None:
        """Let go of the work on a layer that is gone, or holds another loop; it stays saved."""
        gone = [work for work in self._workspaces if work.image == image]
        self._workspaces = [work for work in self._workspaces if work.image != image]
        for work in gone:
            work.disconnect()
            self.submit(partial(self.host.forget, work.session), _drop)

    def _on_active(self, event: Any = None) -> None:
        self.marks.tool_changed()

    def _on_masks_lost(self) -> None:
        self.noticed.emit("Something else changed the size of the masks, so they are shown in a new layer.")
        self.show_everything()

    def _on_layer_removed(self, event: Any) -> None:
        gone, was_tracking = event.value, self.tracker.running
        if gone == self.image:
            self._leave()
            if was_tracking:
                self.noticed.emit("The image was removed, so tracking stopped. The masks found so far stay.")
        self._forget(gone)
        for work in self._workspaces:
            if work.result.forget(gone) and work is self.work:
                self.tracker.cancel()
                if was_tracking:
                    self.noticed.emit(
                        "The masks were removed, so tracking stopped. "
                        "Nothing is lost: they come back with the next result."
                    )
            self.marks.forget(work, gone)
        self.changed.emit()

    def disconnect_viewer(self) -> None:
        """Hear no more from the viewer and its layers."""
        self.viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        for work in self._workspaces:
            work.disconnect()
            left_behind.leave(work)
        if self.work is not None:
            self._connect_image(self.work.image, connect=False)
            self.work = None

    def close(self) -> bool:
        """Stop the inference thread and let go of the model; returns whether it ended in time.

        What was drawn is sent before, and the session is saved, as it is at every change: `set_image` goes on with it.
        """
        self._leave()
        stopped = self.jobs.stop()
        if stopped:
            self.host.release()
        self.marks.stop()
        self.objects.forget_sent()
        self._loaded = False
        self.tracker.forget()
        return stopped


def _drop(value: Any) -> None:
    """What comes back concerns nobody."""
