"""No key of the panel's is one that napari uses by itself, for its window or for any type of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from app_model.types import KeyBinding
from napari import layers
from napari._app_model import get_app_model
from napari.components import ViewerModel
from napari.utils.shortcuts import default_shortcuts

from napari_uniultra.widgets.keys import KEYS, WORDS


def binding(key: Any) -> KeyBinding:
    if isinstance(key, KeyBinding):
        return key
    return KeyBinding.from_str(key.replace("-", "+")) if isinstance(key, str) else KeyBinding.from_int(int(key))


OURS = {str(binding(key.replace("Control", "Ctrl"))): name for name, key in KEYS.items()}


def clashes(keys: Any) -> set[str]:
    return {OURS[key] for key in {str(binding(key)) for key in keys} & set(OURS)}


def test_every_key_is_ours_once_and_has_words() -> None:
    assert len(OURS) == len(KEYS)
    assert WORDS.keys() == KEYS.keys()


def test_no_key_takes_the_place_of_one_of_naparis_shortcuts() -> None:
    assert clashes(key for keys in default_shortcuts.values() for key in keys) == set()


LAYERS = (layers.Image, layers.Labels, layers.Points, layers.Shapes, layers.Surface, layers.Tracks, layers.Vectors)


@pytest.mark.parametrize("provider", (ViewerModel, *LAYERS), ids=lambda own: own.__name__)
def test_no_key_is_bound_by_a_class_of_naparis(provider: Any) -> None:
    keys = {key for cls in provider.__mro__ for key in cls.__dict__.get("class_keymap", {})}
    assert clashes(keys) == set()


@pytest.mark.gui
def test_no_key_is_that_of_an_entry_in_naparis_menus(make_napari_viewer: Callable[..., Any]) -> None:
    make_napari_viewer()  # which registers the entries
    taken = [own.keybinding for own in get_app_model().keybindings]
    assert str(binding("Ctrl+O")) in {str(key) for key in taken}  # they were found
    assert clashes(taken) == set()
