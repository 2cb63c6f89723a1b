"""Fixtures that every test may use, and the isolation that every test gets."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ultrasound that is too large or not licensed to ship; tests that need it are skipped without it."""
    folder = REPO_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the data set folder {folder} is not here")
    return folder
