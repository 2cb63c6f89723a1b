"""What a test does on the virtual device, in a process of its own; its name is the first argument, then a model's."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch.utils._pytree import tree_leaves
from virtual_device import Virtual, copied_there, virtual_device

from napari_uniultra.benchmarks.loops import SyntheticLoop, boxes
from napari_uniultra.core.types import Cine
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import architecture
from napari_uniultra.model.load import load_model
from napari_uniultra.model.loaded import Model
from napari_uniultra.segment.fallback import run_with_fallback
from napari_uniultra.segment.session import CineSession

SHAPE_HW = (150, 200)
SIZE = 128
FRAMES = 4


def on_the_cpu(name: str) -> Model:
    """The bundled model, or another one with random weights."""
    if name == "uniultra-mini":
        return load_model(name, "cpu").at(SIZE)
    torch.manual_seed(0)
    config = architecture(name).with_(image_size=SIZE)
    return Model(build_network(config), config, torch.device("cpu"), name, "0" * 64, {})


def there(model: Model, device: torch.device) -> Model:
    """The same one on a device."""
    return Model(copied_there(model.network), model.config, device, model.name, model.sha256, {})


def worked_with(model: Model) -> CineSession:
    """A session in which every kind of prompt was given, corrected and tracked."""
    session = CineSession(Cine(SyntheticLoop(FRAMES, SHAPE_HW)), model)
    for object_id, box in enumerate(boxes(2, SHAPE_HW), 1):
        session.add_box(object_id, 0, box)
    session.add_points(1, 0, [(5, 5)], [0])
    mask = np.zeros(SHAPE_HW, bool)
    mask[10:40, 10:40] = True
    session.add_mask(3, 1, mask)
    list(session.propagate())
    session.add_points(1, 2, [(5, 5)], [0])
    session._engine.memories.kept.clear()  # as when they take too much room
    list(session.propagate("both"))
    list(session.embed_around(2))
    return session


def same_masks(name: str) -> None:
    """All is computed where the model is."""
    model = on_the_cpu(name)
    expected = worked_with(model).masks
    with virtual_device() as device:
        found = worked_with(there(model, device)).masks
    assert expected.any()
    assert (found != expected).mean() < 1e-4, "other kernels round otherwise, but not so much"


def fallback(name: str) -> None:
    """Nothing is left on a device that has no more memory."""
    model = on_the_cpu(name)
    with virtual_device() as device:
        session, notices = worked_with(there(model, device)), []

        def work() -> int:
            if session.model.device == device:
                raise torch.OutOfMemoryError
            return len(list(session.propagate()))

        assert run_with_fallback(session, work, notices.append) == FRAMES
        assert len(notices) == 1
        kept = [leaf for module in session.model.network.modules() for leaf in tree_leaves(vars(module))]
        assert any(isinstance(leaf, torch.Tensor) for leaf in kept)
        assert not any(isinstance(leaf, Virtual) for leaf in kept)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"same_masks": same_masks, "fallback": fallback}[sys.argv[1]](sys.argv[2])
