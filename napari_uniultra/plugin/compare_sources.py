"""Where the masks of a comparison come from. Everything here runs in the comparison's own thread. No Qt, no napari."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_uniultra.core.masks import Masks, stack_of
from napari_uniultra.core.types import Cine, default_name
from napari_uniultra.errors import PromptError, UniUltraError
from napari_uniultra.io.readers.masks import read_masks
from napari_uniultra.segment.autosave import autosave_file
from napari_uniultra.segment.session_file import load_state
from napari_uniultra.segment.state import SessionState


@dataclass(frozen=True)
class Progress:
    """What is being done, and how far it is: ``done`` of ``total`` frames."""

    words: str
    done: int = 0
    total: int = 0


Loading = Generator[Progress, None, Masks]


@dataclass(frozen=True)
class LayerMasks:
    """Masks that are shown in the viewer, as they were when the comparison was asked for."""

    title: str
    masks: Masks

    def load(self, cine: Cine) -> Loading:
        """The masks."""
        yield Progress(f"Reading {self.title}")
        return self.masks


@dataclass(frozen=True)
class SessionMasks:
    """The masks of a session file."""

    path: Path

    @property
    def title(self) -> str:
        """The file's name."""
        return self.path.stem

    def load(self, cine: Cine) -> Loading:
        """The masks. Raises ReadError where the file is damaged or of another loop."""
        yield Progress(f"Reading {self.title}")
        return masks_of(load_state(self.path, cine), cine)


@dataclass(frozen=True)
class FileMasks:
    """The masks of a file, such as a reference."""

    path: Path

    @property
    def title(self) -> str:
        """The file's name."""
        return self.path.name.split(".")[0]

    def load(self, cine: Cine) -> Loading:
        """The masks. Raises ReadError where the file holds none."""
        yield Progress(f"Reading {self.title}")
        return read_masks(self.path, len(cine))


@dataclass(frozen=True)
class ModelMasks:
    """What a model makes of the marks on the loop, in a session of its own: the one that is open is not touched."""

    model: str  # name or path
    device: str = "auto"

    @property
    def title(self) -> str:
        """The model's name."""
        return Path(self.model).stem if self.model.endswith((".safetensors", ".pt", ".pth")) else self.model

    def load(self, cine: Cine) -> Loading:
        """Answer the marks and track them both ways.

        Raises
        ------
        PromptError
            When nothing is marked on the loop.
        UniUltraError
            When the model cannot be loaded.
        """
        from napari_uniultra.model.load import load_model  # imports torch
        from napari_uniultra.segment.session import CineSession

        state = kept_state(cine)
        yield Progress(f"Loading {self.title}")
        session = CineSession(cine, load_model(self.model, self.device))
        words = f"{self.title} segments the loop"
        for (object_id, frame), prompt in sorted(state.prompts.items(), key=lambda entry: entry[0]):
            session.set_prompt(object_id, frame, prompt)
            session.name_object(object_id, state.names.get(object_id, default_name(object_id)))
            yield Progress(words)
        total = session.frames_to_propagate("both")
        for done, _ in enumerate(session.propagate("both"), start=1):
            yield Progress(words, done, total)
        return Masks.of_cine(cine, session.masks, session.names)


Source = LayerMasks | SessionMasks | FileMasks | ModelMasks


def kept_state(cine: Cine) -> SessionState:
    """What the user made of a loop so far, as it is kept after every change.

    Raises
    ------
    PromptError
        When there are no marks.
    """
    try:
        state = load_state(autosave_file(cine), cine)
    except UniUltraError as error:
        raise PromptError("There are no marks on this loop", error.why, _MARK_FIRST) from error
    if not state.prompts:
        raise PromptError("There are no marks on this loop", fix=_MARK_FIRST)
    return state


_MARK_FIRST = "Mark a structure in the panel Segment loop first: every model starts from the same marks"


def masks_of(state: SessionState, cine: Cine) -> Masks:
    """The masks of a session's state."""
    return Masks.of_cine(cine, state.labels((len(cine), *cine.shape_hw)), state.names)


def labels_of(layer: Any) -> np.ndarray:
    """A copy of a Labels layer's masks as (T, H, W)."""
    return stack_of(np.array(layer.data))
