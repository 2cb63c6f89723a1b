"""Between the viewer and the session: what is drawn becomes jobs for the inference thread, what comes back is shown.

No widgets. Everything here runs in the GUI thread; the `SessionHost` is only touched inside the jobs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QGuiApplication

from napari_uniultra.core.types import Direction, Prompt
from napari_uniultra.errors import UniUltraError
from napari_uniultra.plugin.layers import Key, cine_from_layer
from napari_uniultra.plugin.prompt_layers import PromptLayers, Tool, shown_frame
from napari_uniultra.plugin.result_layer import ResultLayer
from napari_uniultra.plugin.session_host import LoadedModel, Outcome, SessionHost, Snapshot

_SETTLE_MS = 50  # edits within this time are sent as one
_TRANSFORM_EVENTS = ("scale", "translate", "rotate", "shear", "affine")


class StreamHandle(Protocol):
    """A running job in steps."""

    cancelled: bool

    def cancel(self) -> None: ...


class Jobs(Protocol):
    """The inference thread, as `widgets.worker.InferenceThread` is: jobs in order, callbacks in the GUI thread."""

    busy: bool

    def submit(self, work: Callable, done: Callable, failed: Callable, key: str | None = None) -> None: ...

    def stream(self, steps: Callable, item: Callable, done: Callable, failed: Callable) -> StreamHandle: ...

    def stop(self, timeout_s: float = ...) -> bool: ...


@dataclass(frozen=True)
class Progress:
    """How far tracking is; ``seconds_left`` and ``frames_per_s`` are None until there is something to reckon from."""

    done: int
    total: int
    frames_per_s: float | None = None
    seconds_left: float | None = None


@dataclass
class Workspace:
    """What belongs to one image layer: its layers, objects and what is known of its session."""

    image: Any
    prompts: PromptLayers
    result: ResultLayer
    objects: dict[int, str] = field(default_factory=lambda: {1: "Object 1"})
    current: int = 1
    snapshot: Snapshot = field(default_factory=Snapshot)
    last_read: dict[Key, Prompt] = field(default_factory=dict)


class SegmentController(QObject):
    """Drives one session from a napari viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    jobs : Jobs
        The inference thread.
    """

    status_changed = Signal(str)
    noticed = Signal(str)  # something the user should see, in words
    failed = Signal(object)  # an exception
    progressed = Signal(object)  # Progress, or None when tracking ended
    changed = Signal()  # objects, undo, locks, tracking, what can be restored
    model_loaded = Signal(object)  # LoadedModel

    _notice_from_host = Signal(str)

    def __init__(self, viewer: Any, jobs: Jobs) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._notice_from_host.connect(self.noticed)
        self._host = SessionHost(self._notice_from_host.emit)
        self._model = ("", "auto")
        self._model_is_loaded = False
        self._workspaces: list[Workspace] = []
        self._work: Workspace | None = None
        self._tool: Tool | None = None
        self._stream: StreamHandle | None = None
        self._stream_start, self._stream_done = 0.0, 0
        self._restorable = False
        self._outlines_as_masks = False
        self._pending: dict[Key, Prompt | None] = {}
        self._pending_lock = threading.Lock()
        self._problems: set[str] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._sync)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self.changed.connect(self._name_objects)

    # State for the panel --------------------------------------------------------------------------------------------

    @property
    def image(self) -> Any:
        """The image layer in use, or None."""
        return None if self._work is None else self._work.image

    @property
    def objects(self) -> dict[int, str]:
        """Object id to name."""
        return {} if self._work is None else dict(self._work.objects)

    @property
    def current_object(self) -> int:
        """The object that the next drag or click is for."""
        return 1 if self._work is None else self._work.current

    @property
    def tool(self) -> Tool | None:
        """The tool in hand."""
        return self._tool

    @property
    def tracking(self) -> bool:
        """Whether a propagation is under way."""
        return self._stream is not None

    @property
    def busy(self) -> bool:
        """Whether anything that was asked for has not been answered yet."""
        return self.tracking or self._timer.isActive() or self._jobs.busy

    @property
    def restorable(self) -> bool:
        """Whether there is saved work for this loop that was not restored yet."""
        return self._restorable

    @property
    def snapshot(self) -> Snapshot:
        """What is known of the session."""
        return Snapshot() if self._work is None else self._work.snapshot

    @property
    def frame(self) -> int:
        """The frame that is shown."""
        return 0 if self._work is None else shown_frame(self._viewer, self._work.image)

    @property
    def frame_is_accepted(self) -> bool:
        """Whether anything on the frame shown is accepted."""
        return any(frame == self.frame for _, frame in self.snapshot.locked)

    @property
    def layers(self) -> list[Any]:
        """The layers of ours that exist for this image."""
        if self._work is None:
            return []
        result = self._work.result.layer
        return [*self._work.prompts.layers, *([] if result is None else [result])]

    # Image and model ------------------------------------------------------------------------------------------------

    def set_image(self, layer: Any) -> None:
        """Work on an image layer, or on none. Coming back to one goes on where it was left."""
        if self._work is not None and layer is not None and layer == self._work.image:
            return
        self._leave()
        if layer is not None:
            self._enter(layer)
        self.changed.emit()

    def _leave(self) -> None:
        self.cancel()
        self._sync()
        self.put_tool_away()
        if self._work is not None:
            self._connect_image(self._work.image, connect=False)
        self._work, self._restorable = None, False

    def _enter(self, layer: Any) -> None:
        data = layer.data[0] if layer.multiscale else layer.data
        try:
            cine = cine_from_layer(data, layer.rgb, layer.metadata)
        except UniUltraError as error:
            self.failed.emit(error)
            return
        work = next((known for known in self._workspaces if known.image == layer), None)
        is_known = work is not None and bool(work.snapshot.names)
        if work is None:
            work = Workspace(
                layer,
                PromptLayers(self._viewer, layer, self._timer.start),
                ResultLayer(self._viewer, layer, self._timer.start),
            )
            self._workspaces.append(work)
        work.prompts.outlines_as_masks = self._outlines_as_masks
        self._work = work
        self._connect_image(layer, connect=True)
        self._submit(lambda: self._host.open(cine), lambda found: self._opened(found, resume=is_known))

    def _opened(self, found: bool, resume: bool) -> None:
        if found and resume:
            self.restore()
            return
        self._restorable = found
        self.status_changed.emit("There is saved work for this loop" if found else "Draw a box around a structure")
        self.changed.emit()

    def _connect_image(self, layer: Any, connect: bool) -> None:
        for name in _TRANSFORM_EVENTS:
            emitter = getattr(layer.events, name)
            (emitter.connect if connect else emitter.disconnect)(self._on_transform)
        (layer.events.data.connect if connect else layer.events.data.disconnect)(self._on_image_data)

    def _on_transform(self, event: Any = None) -> None:
        if self._work is not None:
            self._work.prompts.follow_image()
            self._work.result.follow_image()

    def _on_image_data(self, event: Any = None) -> None:
        """The layer now holds another loop: begin anew; the work on the old one is saved under that one's content."""
        layer = self.image
        self._workspaces = [work for work in self._workspaces if work.image != layer]
        self._leave()
        self._enter(layer)
        self.changed.emit()

    def set_model(self, name: str, device: str) -> None:
        """Use another model from the next job on. Prompts and masks stay."""
        if (name, device) == self._model:
            return
        self._model = (name, device)
        if self._pending:
            self._send({})  # what could not be segmented for want of a model
        elif self._model_is_loaded:
            self._load_model()

    def _load_model(self) -> None:
        self.status_changed.emit(f"Loading {self._model[0]}")
        self._submit(lambda: None, lambda _: self.status_changed.emit("Ready"), with_model=True, key="load")

    # Tools and objects ----------------------------------------------------------------------------------------------

    def use_tool(self, tool: Tool) -> None:
        """Take a tool in hand: "box", "add" or "remove". The model gets ready for the frame shown meanwhile."""
        if self._work is None:
            self._say_no_image()
            return
        self._tool = tool
        self._sync()
        if len(self._work.prompts.layers) < 2 and self._work.snapshot.prompts:
            self._draw(self._work.snapshot.prompts)  # a layer that was deleted: its prompts are still in force
        self._work.prompts.use(tool, self._work.current)
        frame = self.frame
        if not self._model_is_loaded:
            self.status_changed.emit(f"Loading {self._model[0]}")
        self._submit(lambda: self._host.prepare(frame), lambda _: None, with_model=True, key="prepare")
        self.changed.emit()

    def put_tool_away(self) -> None:
        """Let dragging move the picture again."""
        self._tool = None
        if self._work is not None:
            self._work.prompts.rest()
        self.changed.emit()

    def set_outlines_as_masks(self, on: bool) -> None:
        """Whether ellipses and polygons count as filled outlines instead of the box around them."""
        self._outlines_as_masks = on
        if self._work is not None:
            self._work.prompts.outlines_as_masks = on
            self._timer.start()

    def choose_object(self, object_id: int) -> None:
        """Draw for another object from now on."""
        if self._work is not None and object_id in self._work.objects and object_id != self._work.current:
            self._work.current = object_id
            self._work.prompts.choose_object(object_id)
            self._work.result.choose(object_id)
            self.changed.emit()

    def next_object(self) -> None:
        """Choose the object after the current one."""
        ids = sorted(self.objects)
        if ids:
            self.choose_object(ids[(ids.index(self.current_object) + 1) % len(ids)])

    def add_object(self, name: str = "") -> None:
        """Add an object and choose it."""
        if self._work is None:
            self._say_no_image()
            return
        object_id = max(self._work.objects, default=0) + 1
        self._work.objects[object_id] = name or f"Object {object_id}"
        self.choose_object(object_id)

    def rename_object(self, object_id: int, name: str) -> None:
        """Name an object."""
        name = name.strip()
        if self._work is None or not name or self._work.objects.get(object_id) == name:
            self.changed.emit()
            return
        self._work.objects[object_id] = name
        if object_id in self._work.snapshot.names:
            self._submit(lambda: self._host.rename(object_id, name), self._show, with_model=True)
        self.changed.emit()

    def _name_objects(self) -> None:
        if self._work is not None:
            self._work.result.name(self._work.objects)

    def remove_object(self, object_id: int) -> None:
        """Remove an object with its drawings and masks."""
        work = self._work
        if work is None or object_id not in work.objects:
            return
        self.cancel()
        self._sync()
        del work.objects[object_id]
        if not work.objects:
            work.objects[1] = "Object 1"
        work.prompts.show({key: prompt for key, prompt in work.prompts.read().prompts.items() if key[0] != object_id})
        work.last_read = work.prompts.read().prompts
        if work.current not in work.objects:
            self.choose_object(min(work.objects))
        if object_id in work.snapshot.names:
            self._submit(lambda: self._host.remove_object(object_id), self._show, with_model=True)
        self.changed.emit()

    # Prompts --------------------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Send what changed in the layers of prompts."""
        self._timer.stop()
        work = self._work
        if work is None:
            return
        if QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton:
            self._timer.start()  # something is being drawn or dragged: wait until it is let go
            return
        read = work.prompts.read()
        self._tell_problems(read.problems)
        changed = {
            key: read.prompts.get(key)
            for key in {*read.prompts, *work.last_read}
            if read.prompts.get(key) != work.last_read.get(key)
        }
        work.last_read = read.prompts
        self._send(changed)
        painted = work.result.take_painted()
        if painted:
            self._submit(lambda: self._host.set_painted(painted), self._show_painted, with_model=True)

    def _send(self, prompts: dict[Key, Prompt | None]) -> None:
        with self._pending_lock:
            self._pending.update(prompts)
            if not self._pending:
                return
        names = self.objects
        self.status_changed.emit("Segmenting" if self._model_is_loaded else f"Loading {self._model[0]}")
        self._submit(
            lambda: self._host.set_prompts(self._take_pending(), names),
            self._show_prompts,
            with_model=True,
            key="prompts",
        )

    def _take_pending(self) -> dict[Key, Prompt | None]:
        """All edits since the last job took its share; in the inference thread."""
        with self._pending_lock:
            taken, self._pending = self._pending, {}
        return taken

    def _show_prompts(self, outcome: Outcome) -> None:
        self._show(outcome)
        if outcome.errors:
            for error in outcome.errors.values():
                self.failed.emit(error)
            self._draw(outcome.snapshot.prompts, keys=outcome.errors)

    def _show_painted(self, outcome: Outcome) -> None:
        """A painted mask takes the place of what was drawn for that object on that frame."""
        self._work.objects = {**outcome.snapshot.names, **self._work.objects}
        self._show_prompts(outcome)
        prompts = outcome.snapshot.prompts
        self._draw(prompts, keys=[key for key in prompts if key[1] in outcome.labels])

    def _draw(self, prompts: dict[Key, Prompt], keys: Any = None) -> None:
        """Make the drawings say what the session holds, without sending that back to it."""
        with self._pending_lock:
            pending = set(self._pending)
        keys = ({*prompts, *self._work.last_read} if keys is None else set(keys)) - pending
        self._work.prompts.show(prompts, keys=keys)
        self._work.last_read = self._work.prompts.read().prompts

    def _tell_problems(self, problems: list[Any]) -> None:
        words = {str(problem) for problem in problems}
        for problem in problems:
            if str(problem) not in self._problems:
                self.failed.emit(problem)
        self._problems = words

    # Tracking -------------------------------------------------------------------------------------------------------

    def track(self, direction: Direction) -> None:
        """Track all objects: "forward", "backward" or "both"."""
        if self._work is None:
            self._say_no_image()
            return
        if self.tracking:
            return
        self._sync()
        work, frame = self._work, self.frame
        self._stream_done = 0
        self._stream = self._jobs.stream(
            lambda: self._track(direction, frame),
            lambda item: self._tracked(work, item),
            lambda stream: self._track_ended(work, stream),
            lambda error: self._track_failed(work, error),
        )
        self.status_changed.emit("Tracking" if self._model_is_loaded else f"Loading {self._model[0]}")
        self.changed.emit()

    def _track(self, direction: Direction, frame: int) -> Iterator[Any]:
        """In the inference thread."""
        yield self._host.use_model(*self._model)
        yield from self._host.track(direction, frame)

    def _tracked(self, work: Workspace, item: LoadedModel | Outcome) -> None:
        if isinstance(item, LoadedModel):
            self._note_model(item)
            return
        if work != self._work:
            return
        if item.labels:
            self._stream_done += 1
        else:
            self._stream_start = time.monotonic()
        self._show(item, quiet=True)
        if self._stream is not None:
            self.progressed.emit(self._progress(item.steps))

    def _progress(self, total: int) -> Progress:
        elapsed, done = time.monotonic() - self._stream_start, self._stream_done
        if not done or elapsed <= 0:
            return Progress(done, total)
        return Progress(done, total, done / elapsed, (total - done) * elapsed / done)

    def _track_ended(self, work: Workspace, stream: StreamHandle) -> None:
        self._end_stream(f"Stopped after {self._stream_done} frames" if stream.cancelled else "Tracked")

    def _track_failed(self, work: Workspace, error: Exception) -> None:
        self._end_stream("Tracking stopped; what was found so far is kept")
        self.failed.emit(error)

    def _end_stream(self, words: str) -> None:
        self._stream = None
        self.progressed.emit(None)
        self.status_changed.emit(words)
        self.changed.emit()

    def cancel(self) -> None:
        """Stop tracking after the frame it is at; finished frames stay."""
        if self._stream is not None and not self._stream.cancelled:
            self._stream.cancel()
            self.status_changed.emit("Stopping")

    # Accept, undo, restore ------------------------------------------------------------------------------------------

    def accept_frame(self) -> None:
        """Accept the frame shown, so that it is never overwritten and guides tracking; or take that back."""
        if self._work is None:
            self._say_no_image()
            return
        self._sync()
        frame = self.frame
        self._submit(lambda: self._host.toggle_lock(frame), self._show, with_model=True)

    def undo(self) -> None:
        """Take back the last change."""
        self._go(self._host.undo)

    def redo(self) -> None:
        """Make the change again that was last taken back."""
        self._go(self._host.redo)

    def restore(self) -> None:
        """Bring back the work that was saved for this loop."""
        self._restorable = False
        self._go(self._host.restore)

    def _go(self, job: Callable[[], Outcome]) -> None:
        if self._work is None:
            self._say_no_image()
            return
        self.cancel()
        self._sync()
        self.status_changed.emit("Working" if self._model_is_loaded else f"Loading {self._model[0]}")
        self._submit(job, self._show_other_state, with_model=True)
        self.changed.emit()

    def _show_other_state(self, outcome: Outcome) -> None:
        work = self._work
        never_prompted = {k: name for k, name in work.objects.items() if k not in work.snapshot.names}
        work.objects = {**never_prompted, **outcome.snapshot.names} or {1: "Object 1"}
        self._show(outcome)
        self._draw(outcome.snapshot.prompts)
        if work.current not in work.objects:
            self.choose_object(min(work.objects))

    # Jobs -----------------------------------------------------------------------------------------------------------

    def _submit(
        self, work: Callable[[], Any], done: Callable[[Any], None], with_model: bool = False, key: str | None = None
    ) -> None:
        """Run a job; what comes back after the user went to another image is dropped: it is in that one's session."""
        workspace, model = self._work, self._model

        def job() -> tuple[LoadedModel | None, Any]:
            info = self._host.use_model(*model) if with_model else None
            return info, work()

        def finished(result: tuple[LoadedModel | None, Any]) -> None:
            info, value = result
            if info is not None:
                self._note_model(info)
            if workspace == self._work:
                done(value)

        self._jobs.submit(job, finished, self._job_failed, key=key)

    def _job_failed(self, error: Exception) -> None:
        self.status_changed.emit("That did not work; everything else is as it was")
        self.failed.emit(error)
        self.changed.emit()

    def _note_model(self, info: LoadedModel) -> None:
        if not self._model_is_loaded:
            self.status_changed.emit("Ready")
        self._model_is_loaded = True
        self.model_loaded.emit(info)

    def _show(self, outcome: Outcome, quiet: bool = False) -> None:
        work = self._work
        work.snapshot = outcome.snapshot
        is_new = work.result.layer is None
        if is_new and self._stream is not None and self._stream.cancelled:
            return  # the masks were deleted while tracking: they do not come back by themselves
        work.result.write(outcome.labels, outcome.everything)
        if is_new and work.result.layer is not None and not outcome.everything:
            self._submit(self._host.everything, self._show, key="everything")
        if not quiet:
            self.status_changed.emit("Ready")
            self.changed.emit()

    def _say_no_image(self) -> None:
        self.noticed.emit("There is no loop to work on. Open an ultrasound loop, or choose its layer under Loop.")

    # Layers that go -------------------------------------------------------------------------------------------------

    def _on_layer_removed(self, event: Any) -> None:
        gone, was_tracking = event.value, self.tracking
        self._workspaces = [work for work in self._workspaces if work.image != gone or work == self._work]
        work = self._work
        if work is None:
            return
        if gone == work.image:
            self._leave()
            self._workspaces.remove(work)
            self._submit(lambda: self._host.open(None), lambda _: None)
            if was_tracking:
                self.noticed.emit("The image was removed, so tracking stopped. The masks found so far stay.")
        elif work.result.forget(gone):
            self.cancel()
            if was_tracking:
                self.noticed.emit(
                    "The masks were removed, so tracking stopped. Nothing is lost: they come back with the next result."
                )
        elif work.prompts.forget(gone):
            # Deleting the drawings is no wish to lose the masks: the prompts stay in force until they are edited.
            work.last_read = work.prompts.read().prompts
            self._tool = None
        self.changed.emit()

    def disconnect_viewer(self) -> None:
        """Hear no more from the viewer and its layers."""
        self._viewer.layers.events.removed.disconnect(self._on_layer_removed)
        for work in self._workspaces:
            work.prompts.disconnect()
            work.result.disconnect()
        if self._work is not None:
            self._connect_image(self._work.image, connect=False)
            self._work = None

    def close(self) -> bool:
        """Stop the inference thread and let go of session and model; returns whether it ended in time.

        The session is saved, as it is at every change: `set_image` goes on with it.
        """
        self._leave()
        self._timer.stop()
        stopped = self._jobs.stop()
        if stopped:
            self._host.release()
        self._pending.clear()
        self._model_is_loaded = False
        if self._stream is not None:
            self._end_stream("Stopped")
        return stopped
