"""The objects of the loop in use: add, choose, name and remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_uniultra.plugin.workspace import FIRST_OBJECT

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController


class Objects(QObject):
    """What is segmented; the current one is what the next drag or click is for."""

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control

    @property
    def names(self) -> dict[int, str]:
        """Object id to name."""
        work = self._control.work
        return {} if work is None else dict(work.objects)

    @property
    def current(self) -> int:
        """The object that the next drag or click is for."""
        work = self._control.work
        return 1 if work is None else work.current

    def choose(self, object_id: int) -> None:
        """Draw for another object from now on."""
        work = self._control.work
        if work is not None and object_id in work.objects and object_id != work.current:
            work.current = object_id
            work.prompts.choose_object(object_id)
            work.result.choose(object_id)
            self._control.changed.emit()

    def choose_next(self) -> None:
        """Choose the object after the current one."""
        ids = sorted(self.names)
        if ids:
            self.choose(ids[(ids.index(self.current) + 1) % len(ids)])

    def add(self, name: str = "") -> None:
        """Add an object and choose it."""
        work = self._control.work_or_word()
        if work is None:
            return
        object_id = max(work.objects, default=0) + 1
        work.objects[object_id] = name or f"Object {object_id}"
        self.choose(object_id)

    def rename(self, object_id: int, name: str) -> None:
        """Name an object."""
        control, work, name = self._control, self._control.work, name.strip()
        if work is not None and name and work.objects.get(object_id) != name:
            work.objects[object_id] = name
            if object_id in work.snapshot.names:
                control.submit(lambda: control.host.rename(object_id, name), control.show, with_model=True)
        control.changed.emit()

    def remove(self, object_id: int) -> None:
        """Remove an object with its drawings and masks."""
        control, work = self._control, self._control.work
        if work is None or object_id not in work.objects:
            return
        control.tracker.cancel()
        control.marks.sync()
        del work.objects[object_id]
        work.objects = work.objects or FIRST_OBJECT.copy()
        control.marks.draw({key: prompt for key, prompt in work.prompts.read().prompts.items() if key[0] != object_id})
        self.choose_known()
        if object_id in work.snapshot.names:
            control.submit(lambda: control.host.remove_object(object_id), control.show, with_model=True)
        control.changed.emit()

    def take_over(self, names: dict[int, str]) -> None:
        """The session went to another state: its objects, and those that were never prompted, are what there is."""
        work = self._control.work
        never_prompted = {k: name for k, name in work.objects.items() if k not in work.snapshot.names}
        work.objects = {**never_prompted, **names} or FIRST_OBJECT.copy()

    def choose_known(self) -> None:
        """Choose another object when the current one is gone."""
        work = self._control.work
        if work.current not in work.objects:
            self.choose(min(work.objects))
