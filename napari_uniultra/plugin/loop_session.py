"""What is kept of a loop while another one is in use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_uniultra.core.types import Cine
from napari_uniultra.segment.autosave import autosave_file

if TYPE_CHECKING:
    from napari_uniultra.segment.session import CineSession


@dataclass(eq=False)
class LoopSession:
    """The session of one layer's loop, kept while the host has another one in use; for the host alone to change.

    Attributes
    ----------
    cine : Cine or None
        As it was when the session was begun.
    session : CineSession or None
        None until it is needed.
    saved_work : Path or None
        Of an earlier session on this loop, not restored so far.
    saved_last : bool
        Whether the file where the loop's work is kept is this session's.
    is_told : bool
        Whether it was said that another layer has the same content.
    mark_edits : int
        How many changes of what is drawn it has heard of.
    """

    cine: Cine | None = None
    session: CineSession | None = None
    saved_work: Path | None = None
    saved_last: bool = False
    is_told: bool = False
    mark_edits: int = 0

    @property
    def path(self) -> Path:
        """Where its work is kept: one place for each content."""
        return autosave_file(self.cine)

    @property
    def has_begun(self) -> bool:
        """Whether anything was done in it."""
        session = self.session
        return session is not None and bool(session.names or session.waiting or session.can_undo or session.can_redo)

    @property
    def is_waiting(self) -> bool:
        """Whether something that was asked for was not answered yet; may be read in any thread."""
        return self.session is not None and bool(self.session.waiting)

    def begin(self, cine: Cine) -> None:
        """Begin on a loop, or anew where its content is another."""
        self.cine, self.session, self.saved_last, self.is_told = cine, None, False, False
        self.saved_work = self.path if self.path.is_file() else None

    def put_aside(self) -> None:
        """Keep the session, its undo included, without a model and without anything on the model's device."""
        if self.session is not None:
            self.session.model = None
