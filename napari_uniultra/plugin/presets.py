"""Structures to choose from for a new object: the ones that ship with the package, or the user's own file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.palette import Colour, colour_of_hex
from napari_uniultra.core.places import config_folder
from napari_uniultra.errors import ConfigError

_FIX = 'Write "Organ:" and under it lines such as "  - {name: Lumen, colour: \'#e69f00\'}"'


@dataclass(frozen=True)
class Preset:
    """A structure by name; ``colour`` is None where the palette's next will do."""

    organ: str
    name: str
    colour: Colour | None = None


def load_presets() -> tuple[list[Preset], ConfigError | None]:
    """The user's presets where there are any, else those that ship; and what is wrong with the user's, if so."""
    own = presets_file()
    if own.is_file():
        try:
            return read_presets(own), None
        except ConfigError as error:
            return read_presets(_shipped()), error
    return read_presets(_shipped()), None


def read_presets(path: Path) -> list[Preset]:
    """The presets of a YAML file: organs, and lists of names with colours.

    Raises
    ------
    ConfigError
        If it is no such file, with the entry that is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The presets in {path} cannot be read", _one_line(error), _FIX) from error
    if not isinstance(content, dict):
        raise ConfigError(f"The presets in {path} cannot be used", "it names no organs", _FIX)
    found = []
    for organ, entries in content.items():
        if not isinstance(entries, list):
            raise ConfigError(f"The presets in {path} cannot be used", f"{organ} holds no list of structures", _FIX)
        found += [_preset(str(organ), entry, path) for entry in entries]
    return found


def presets_file() -> Path:
    """The user's own file; it need not be there."""
    return config_folder() / "objects.yaml"


def editable_presets() -> Path:
    """The user's own file, made from the presets that ship if it was not there.

    Raises
    ------
    WriteError
    """
    own = presets_file()
    if not own.is_file():
        with atomic_path(own) as temporary:
            temporary.write_bytes(_shipped().read_bytes())
    return own


def _shipped() -> Any:
    return files("napari_uniultra.plugin") / "object_presets.yaml"


def _preset(organ: str, entry: Any, path: Path) -> Preset:
    known = isinstance(entry, dict) and entry.keys() <= {"name", "colour"}
    if not known or not str(entry.get("name") or "").strip():
        raise ConfigError(f"The presets in {path} cannot be used", f"under {organ}, {entry!r} is no structure", _FIX)
    colour = None
    if entry.get("colour") is not None:
        colour = colour_of_hex(entry["colour"])
        if colour is None:
            why = f"under {organ}, {entry['colour']!r} is no colour"
            raise ConfigError(f"The presets in {path} cannot be used", why, _FIX)
    return Preset(organ, str(entry["name"]).strip(), colour)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
