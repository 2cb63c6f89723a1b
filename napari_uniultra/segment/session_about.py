"""What a session file says beside a session's state: for which loop, made with which model, and what it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from napari_uniultra.core.types import Cine
from napari_uniultra.core.words import counted

_SHORT_KEY = 8


@dataclass(frozen=True)
class LoopName:
    """A loop by its content and size; nothing of its file or patient.

    Attributes
    ----------
    key : str
        `Cine.key`.
    shape : (int, int, int) or None
        Frames, height and width; None in files of version 1.
    """

    key: str
    shape: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, cine: Cine) -> LoopName:
        """The name of a loop."""
        return cls(cine.key, (len(cine), *cine.shape_hw))

    @property
    def words(self) -> str:
        """Such as "40 frames of 640 x 480 pixels, content 1a2b3c4d"."""
        content = f"content {self.key[:_SHORT_KEY]}"
        if self.shape is None:
            return content
        frames, height, width = self.shape
        return f"{counted(frames, 'frame')} of {width} x {height} pixels, {content}"


@dataclass(frozen=True)
class ModelName:
    """The weights that results came from."""

    name: str
    sha256: str
    image_size: int

    @classmethod
    def of(cls, model: Any) -> ModelName | None:
        """The name of a loaded model; None for one that was built in code, which has no file."""
        sha256 = getattr(model, "sha256", "")
        return cls(model.name, sha256, int(model.image_size)) if sha256 else None


@dataclass(frozen=True)
class SessionAbout:
    """All of a session file but the state.

    Attributes
    ----------
    loop : LoopName
    model : ModelName or None
        Of the latest results; None where there are none, and in files of version 1.
    tables : dict of str to str
        File name to text, such as the measurements as CSV: a receiver can read them with any unzip.
    """

    loop: LoopName
    model: ModelName | None = None
    tables: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready data, without the tables."""
        return {
            "cine": self.loop.key,
            "shape": self.loop.shape,
            "model": None if self.model is None else asdict(self.model),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], tables: Mapping[str, str]) -> SessionAbout:
        """What `as_dict` gave. Raises ValueError, KeyError or TypeError for anything else."""
        shape, model = data.get("shape"), data.get("model")
        if shape is not None:
            frames, height, width = map(int, shape)
            shape = frames, height, width
        return cls(
            LoopName(str(data["cine"]), shape),
            ModelName(str(model["name"]), str(model["sha256"]), int(model["image_size"])) if model else None,
            tables,
        )
