"""The objects of the loop in use: add, choose, name, colour, hide, lock and delete them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_uniultra.core.palette import Colour, colour_of, free_colour
from napari_uniultra.core.types import MAX_OBJECT_ID, default_name
from napari_uniultra.plugin.outcomes import ObjectEdit, Snapshot
from napari_uniultra.plugin.workspace import Structure, first_object

if TYPE_CHECKING:
    from napari_uniultra.plugin.controller import SegmentController


class Objects(QObject):
    """What is segmented; the current one is what the next drag or click is for.

    Every change is shown at once and sent to the session, which is where it can be undone; what the session then says
    is shown as soon as it has heard of all changes.
    """

    def __init__(self, control: SegmentController) -> None:
        super().__init__(control)
        self._control = control
        self._sent = 0  # changes, counted

    # What there is --------------------------------------------------------------------------------------------------

    @property
    def all(self) -> list[Structure]:
        """The objects in the order of their ids; there is always one to draw for."""
        work = self._control.work
        return [] if work is None else [work.objects[object_id] for object_id in sorted(work.objects)]

    @property
    def names(self) -> dict[int, str]:
        """Object id to name."""
        return {own.object_id: own.name for own in self.all}

    @property
    def current(self) -> int:
        """The object that the next drag or click is for."""
        work = self._control.work
        return 1 if work is None else work.current

    # Choosing -------------------------------------------------------------------------------------------------------

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

    # Changing -------------------------------------------------------------------------------------------------------

    def add(self, name: str = "", colour: Colour | None = None) -> None:
        """Add an object and choose it. A name is for the first object, as long as nothing was made of that one."""
        work = self._control.work_or_word()
        if work is None:
            return
        first = min(work.objects)
        untouched = not (work.known or work.last_read or self._control.marks.waiting)
        if untouched and name:
            self._edit(ObjectEdit(first, name, colour))
            return
        highest = max(work.objects)
        object_id = highest + 1 if highest < MAX_OBJECT_ID else min(set(range(1, MAX_OBJECT_ID)) - set(work.objects))
        before = [] if work.known else [ObjectEdit(first, work.objects[first].name)]
        colour = colour or free_colour(object_id, [own.colour for own in work.objects.values()])
        colour = None if colour == colour_of(object_id) else colour  # nothing to remember
        self._edit(*before, ObjectEdit(object_id, name or default_name(object_id), colour))
        self.choose(object_id)

    def rename(self, object_id: int, name: str) -> None:
        """Name an object."""
        work, name = self._control.work, name.strip()
        if work is not None and name and object_id in work.objects and work.objects[object_id].name != name:
            self._edit(ObjectEdit(object_id, name))
        else:
            self._control.changed.emit()  # the list shows the name that counts

    def recolour(self, object_id: int, colour: Colour) -> None:
        """Give an object another colour."""
        work = self._control.work
        if work is not None and object_id in work.objects and work.objects[object_id].colour != colour:
            self._edit(ObjectEdit(object_id, work.objects[object_id].name, colour))

    def lock(self, object_id: int, on: bool) -> None:
        """Protect an object from tracking, prompts and painting, or no longer."""
        work = self._control.work
        if work is not None and object_id in work.objects and work.objects[object_id].locked != on:
            self._control.marks.sync()  # what was drawn before still counts
            self._edit(ObjectEdit(object_id, work.objects[object_id].name, locked=on))

    def hide(self, object_id: int, on: bool) -> None:
        """Take an object's masks and drawings out of the view, or bring them back; they stay in the session."""
        work = self._control.work
        if work is not None and object_id in work.objects and work.objects[object_id].hidden != on:
            self._edit(ObjectEdit(object_id, work.objects[object_id].name, hidden=on))

    def toggle_hidden(self) -> None:
        """Hide the current object, or show it."""
        if self._control.work_or_word() is not None:
            self.hide(self.current, not self._control.work.objects[self.current].hidden)

    def toggle_locked(self) -> None:
        """Lock the current object, or unlock it."""
        if self._control.work_or_word() is not None:
            self.lock(self.current, not self._control.work.objects[self.current].locked)

    def remove_current(self) -> None:
        """Delete the current object."""
        if self._control.work_or_word() is not None:
            self.remove(self.current)

    def remove(self, object_id: int) -> None:
        """Delete an object with its drawings and masks; undo brings back all of it."""
        control, work = self._control, self._control.work
        if work is None or object_id not in work.objects:
            return
        if work.objects[object_id].locked:
            control.noticed.emit(f"{work.objects[object_id].name} is locked. Unlock it to delete it.")
            return
        control.tracker.cancel()
        control.marks.sync()
        control.marks.draw({key: prompt for key, prompt in work.prompts.read().prompts.items() if key[0] != object_id})
        self._edit(ObjectEdit(object_id, removed=True))

    def _edit(self, *edits: ObjectEdit) -> None:
        """Show changes, and send them to the session."""
        control, work = self._control, self._control.work
        for edit in edits:
            if edit.removed:
                work.objects.pop(edit.object_id, None)
                work.known.discard(edit.object_id)
            else:
                own = work.objects.get(edit.object_id) or _new_structure(edit.object_id)
                work.objects[edit.object_id] = replace(own, **edit.changes)
                work.known.add(edit.object_id)
        self._choose_known()
        self._sent += 1
        number = self._sent
        is_removed = any(edit.removed for edit in edits)  # with drawings that the session had not heard of before
        done = control.review.show_other_state if is_removed else control.show
        control.submit(lambda: control.host.edit_objects(edits, number), done)
        control.changed.emit()

    # Following the session ------------------------------------------------------------------------------------------

    def follow(self, snapshot: Snapshot) -> None:
        """Show the objects of the session, once it has heard of all changes made here."""
        work = self._control.work
        if snapshot.object_edits < self._sent:
            return
        work.known = set(snapshot.names)
        found = {
            object_id: Structure(
                object_id,
                name,
                colour_of(object_id, snapshot.colours),
                object_id in snapshot.locked_objects,
                object_id in snapshot.hidden_objects,
            )
            for object_id, name in snapshot.names.items()
        }
        work.objects = found or first_object()
        self._choose_known()

    def forget_sent(self) -> None:
        """The session will not hear of what it has not heard of by now: its thread was stopped."""
        self._sent = 0

    def _choose_known(self) -> None:
        """Choose another object when the current one is gone."""
        work = self._control.work
        work.objects = work.objects or first_object()
        if work.current not in work.objects:
            below = [object_id for object_id in work.objects if object_id < work.current]
            self.choose(max(below, default=min(work.objects)))


def _new_structure(object_id: int) -> Structure:
    return Structure(object_id, default_name(object_id), colour_of(object_id))
