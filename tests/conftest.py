"""Fixtures that every test may use, and the isolation that every test gets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPO_ROOT = Path(__file__).resolve().parents[1]

# Both are read once, when torch and napari are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "2")
_napari_settings = tempfile.TemporaryDirectory(prefix="napari-uniultra-tests-")
os.environ["NAPARI_CONFIG"] = str(Path(_napari_settings.name) / "settings.yaml")


@pytest.fixture(autouse=True)
def isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points caches, autosaves and added weights into the test's own folder, never into the user's."""
    home = tmp_path / "uniultra-home"
    monkeypatch.setenv("NAPARI_UNIULTRA_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds pyproject.toml."""
    return REPO_ROOT


@pytest.fixture
def server() -> Iterator[Any]:
    """A `weight_server.Server` on this machine."""
    import threading

    from weight_server import Handler, Server

    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests, server.released = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def official_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file in the layout of SAM2.1 tiny; every weight is one repeated number, so that it is small."""
    import torch

    from napari_uniultra.model.build import build_network
    from napari_uniultra.model.config import architecture

    state = build_network(architecture("sam2.1-tiny")).state_dict()
    path = tmp_path_factory.mktemp("official") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": {name: torch.full((), 0.01).expand(value.shape) for name, value in state.items()}}, path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ultrasound that is too large or not licensed to ship; tests that need it are skipped without it."""
    folder = REPO_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the data set folder {folder} is not here")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights that segments something, however odd."""
    import torch

    from napari_uniultra.model.build import build_network
    from napari_uniultra.model.checkpoint import save_checkpoint
    from napari_uniultra.model.config import architecture

    torch.manual_seed(3)
    config = architecture("uniultra-mini", image_size=128)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, network, config, {"description": "random weights"})
    return path


@pytest.fixture(scope="session")
def reference_model(checkpoint: Path) -> Any:
    """The same model, for sessions that the panel's is compared with."""
    from napari_uniultra.model.load import load_model

    return load_model(checkpoint, device="cpu")


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], checkpoint: Path, qtbot: Any) -> Iterator[Any]:
    """A `panel_window.Window`: a viewer with the panel docked, the small model in it, and what the user is told."""
    from napari.utils.notifications import notification_manager
    from panel_window import Window

    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
    panel.add_model_file(str(checkpoint))
    told: list[str] = []

    def listen(notification: Any) -> None:
        told.append(notification.message)

    notification_manager.notification_ready.connect(listen)
    yield Window(viewer=viewer, panel=panel, told=told, qtbot=qtbot)
    notification_manager.notification_ready.disconnect(listen)
    panel.thread_.stop()
