"""What a user made of a loop as it changes: the present state, undo and redo, and the file that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from napari_uniultra.core.types import Prompt
from napari_uniultra.segment.autosave import Autosave
from napari_uniultra.segment.history import History
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.session_about import ModelName
from napari_uniultra.segment.state import Key, SessionState


class Work:
    """The only place where a session's state is replaced. A change that changes nothing is none.

    Parameters
    ----------
    autosave : Autosave
        Writes ``state``; called after every change.

    Attributes
    ----------
    state : SessionState
        To be read only; `change` gives a copy that may be written to.
    """

    def __init__(self, autosave: Autosave) -> None:
        self.state = SessionState()
        self._autosave = autosave
        self._history = History()
        self._in_one_change = False
        self._dropped: dict[Key, Prompt] = {}  # what waited until the change under way took it away

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to make again."""
        return self._history.can_redo

    @contextmanager
    def change(self, **values: Any) -> Iterator[SessionState]:
        """A copy of the state to change, with these values: all that is done to it happens, or none on an error."""
        draft = replace(self.state.copy(), **values)
        yield draft
        self._dropped |= {key: own for key, own in self.state.waiting.items() if key not in draft.waiting}
        self._put(draft)

    @contextmanager
    def one_change(self) -> Iterator[None]:
        """Changes inside the block are undone together, and saved once; on an error, those before it count."""
        before, self._in_one_change = self.state, True
        try:
            yield
        finally:
            self._in_one_change = False
            after, self.state = self.state, replace(before, waiting=self.state.waiting)
            self._put(after)

    @contextmanager
    def growing_change(self) -> Iterator[Callable[[Mapping[Key, Result], ModelName], None]]:
        """One change that comes in parts, as tracking does: gives a function that takes in some results.

        Each part counts at once. It is saved when the last save is long enough ago, and at the end of the block.
        """
        has_begun = is_unsaved = False

        def take_in(found: Mapping[Key, Result], made_with: ModelName) -> None:
            nonlocal has_begun, is_unsaved
            if not found:
                return
            if not has_begun:
                self._remember()
                self.state, has_begun = self.state.copy(), True
            self.state.tracked.update(found)
            self.state = replace(self.state, made_with=made_with)
            is_unsaved = not self._autosave.is_due
            if not is_unsaved:
                self._autosave.save()

        try:
            yield take_in
        finally:
            if is_unsaved:
                self._autosave.save()

    def wait(self, prompts: Mapping[Key, Prompt]) -> None:
        """Let these prompts be all that waits for an answer. That is no step to undo; the next change saves it."""
        self.state = replace(self.state, waiting=dict(prompts))

    def undo(self) -> frozenset[int]:
        """Go back by one change; what waits stays, and what the change took away waits again.

        Returns the frames that changed.
        """
        state = self._history.undo(self.state)
        return self._go_to(state, {} if state is None else {**state.waiting, **self.state.waiting})

    def redo(self) -> frozenset[int]:
        """Make the change again that was last taken back. Returns the frames that changed."""
        state = self._history.redo(self.state)
        gone = {} if state is None else state.waiting
        return self._go_to(state, {key: own for key, own in self.state.waiting.items() if own != gone.get(key)})

    def open(self, state: SessionState) -> frozenset[int]:
        """Go to a saved state, from which `undo` goes back; all that waits here or there waits. Saves nothing."""
        if self.state == SessionState():
            self._history.start_anew()
        else:
            self._remember()
        before, self.state = self.state, replace(state, waiting={**self.state.waiting, **state.waiting})
        return before.differing_frames(state)

    def save(self) -> None:
        """Save now."""
        self._autosave.save()

    def _go_to(self, state: SessionState | None, waiting: dict[Key, Prompt]) -> frozenset[int]:
        if state is None:
            return frozenset()
        before, self.state = self.state, replace(state, waiting=waiting)
        self.save()
        return before.differing_frames(self.state)

    def _put(self, state: SessionState) -> None:
        if self._in_one_change:
            self.state = state
        elif state != self.state or self._dropped:
            self._remember()
            self.state = state
            self.save()

    def _remember(self) -> None:
        dropped, self._dropped = self._dropped, {}
        self._history.remember(replace(self.state, waiting=dropped))
