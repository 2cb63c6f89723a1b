"""What a user gets: the wheel holds everything and nothing else, and each way of installing it works.

Everything is built from a copy of the tree, installed into throw-away environments which borrow the dependencies of
this one, and imported there by an interpreter that knows nothing of the tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from npe2 import PluginManifest

from napari_uniultra.io.readers import SUFFIXES

ROOT = Path(__file__).resolve().parents[1]
# Folder of the repository -> where it is installed.
FOLDERS = {
    "napari_uniultra": "napari_uniultra",
    "training": "napari_uniultra/training",
    "sample_data": "napari_uniultra/sample_data",
    "benchmarks": "napari_uniultra/benchmarks",
}
NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", "build", "dist", "demo", "runs")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command outside the tree's influence; its output is in the message of a failure."""
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240, cwd=cwd, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree as a fresh clone would have it: builds leave files beside what they build."""
    copy = tmp_path_factory.mktemp("source") / "napari-uniultra"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCE)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `python -m build` makes: from the tree to an sdist, and from the sdist to the wheel."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    assert len(list(out.glob("*.tar.gz"))) == 1
    (made,) = out.glob("*.whl")
    return made


def expected_files(source: Path) -> set[str]:
    """Every source and data file of the tree under the name that it is installed as."""
    expected = {"napari_uniultra_manifest/napari.yaml"}
    for folder, installed in FOLDERS.items():
        for path in (source / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{installed}/{path.relative_to(source / folder).as_posix()}")
    return expected


def test_wheel_holds_the_tree_and_nothing_else(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == expected_files(source)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert "uniultra = napari_uniultra.cli:main" in archive.read(entry_points).decode()
        assert "License-Expression: Apache-2.0" in archive.read(metadata).decode()


CHECK = """
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

home, names, data = Path({home!r}).resolve(), {names!r}, {data!r}
for name in names:
    module = import_module(name)
    assert Path(module.__file__).resolve().is_relative_to(home), (name, module.__file__)

for package, file in data:
    assert files(package).joinpath(*file.split("/")).is_file(), (package, file)

from npe2 import PluginManager
manager = PluginManager.instance()
manager.discover()
manifest = manager.get_manifest("napari-uniultra")
manifest.validate_imports()
print(version("napari-uniultra"))
"""


def check_code(source: Path, home: Path) -> str:
    """A script that imports every module, finds every data file and resolves everything in napari's manifest."""
    names, data = [], []
    for path in sorted(expected_files(source)):
        folder, _, file = path.removeprefix("napari_uniultra/").partition("/")
        if path.endswith(".py"):
            names.append(path.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."))
        elif folder in {"weights", "sample_data"}:
            data.append((f"napari_uniultra.{folder}", file))
    return CHECK.format(home=str(home), names=names, data=data)


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to every package installed here but ours, whose metadata would hide what the new install lacks."""
    folder = tmp_path_factory.mktemp("dependencies")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "napari_uniultra" not in entry.name:
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def venv(tmp_path: Path, dependencies: Path) -> Path:
    """A new environment that holds the dependencies and nothing of ours."""
    folder = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=tmp_path)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder


def install(venv: Path, *what: str | Path) -> None:
    """Installs into an environment as `pip install` does, with the dependencies and build tools that are there."""
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", *what, cwd=venv)


@pytest.mark.parametrize("way", ["wheel", "folder", "editable"])
def test_each_way_of_installing(way: str, source: Path, wheel: Path, venv: Path) -> None:
    what = {"wheel": (wheel,), "folder": (source,), "editable": ("--editable", source)}[way]
    install(venv, *what)
    home = source if way == "editable" else venv
    check = venv / "check.py"
    check.write_text(check_code(source, home), encoding="utf-8")
    printed = run(venv / "bin" / "python", check, cwd=venv)
    assert printed.strip().splitlines()[-1] == wheel.name.split("-")[1]
    assert "segment" in run(venv / "bin" / "uniultra", "--help", cwd=venv)


def test_manifest_is_valid() -> None:
    manifest = PluginManifest.from_file(ROOT / "napari.yaml")
    assert manifest.name == "napari-uniultra"
    manifest.validate_imports()


def reader(command: str) -> Any:
    """A reader that the manifest offers to napari."""
    found = PluginManifest.from_file(ROOT / "napari.yaml").contributions.readers
    return next(entry for entry in found if entry.command == f"napari-uniultra.{command}")


def test_manifest_offers_every_loop_that_can_be_read() -> None:
    """Single pictures (PNG, JPEG) stay with napari's own reader: a folder of them is a loop, as one of Zarr is."""
    others = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".zarr"}
    loops, studies = reader("get_reader"), reader("get_study_reader")
    by_suffix = {pattern for pattern in loops.filename_patterns if pattern.startswith("*")}
    assert by_suffix == {f"*{suffix}" for suffix in SUFFIXES if suffix not in others}
    assert loops.accepts_directories
    assert studies.accepts_directories
    assert any(fnmatchcase("dicomdir", pattern) for pattern in studies.filename_patterns)


@pytest.mark.parametrize("name", ["1.2.840.113619", "IM0001", "IM_0001", "I0000001"])
def test_scanners_files_without_a_suffix_are_offered(name: str) -> None:
    assert any(fnmatchcase(name, pattern) for pattern in reader("get_reader").filename_patterns)
