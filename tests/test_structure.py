"""The shape of the code: who may import whom, what is packaged, and what may never be imported.

The rules are those of the design: a part imports only from parts above it, so that everything above `plugin` works
without napari and without Qt, and so that starting napari stays quick.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = "napari_uniultra"

# From the top down: a part may import from itself and from the parts before it.
LAYERS = (
    "errors",
    "core",
    "model",
    "segment",
    "io",
    "batch",
    "training",
    "runner",
    "cli",
    "plugin",
    "widgets",
    "benchmarks",
)
# Folders of data: any part may name them, and they import nothing of ours.
DATA_ONLY = {"sample_data", "weights"}
# Downward imports that the design asks for; they must be inside a function.
# Loading a model applies an adapter file's method, which lives with the other methods.
LAZY_EXCEPTIONS = {("cli", "benchmarks"), ("model", "training")}

# Where a heavy package may be imported when the module is loaded; elsewhere only inside a function.
HEAVY = {
    "torch": {"model", "segment", "training", "benchmarks"},
    "napari": {"plugin", "widgets"},
    "qtpy": {"plugin", "widgets"},
}
VIEWER = {"napari", "qtpy", "superqt", "magicgui", "npe2", "PyQt6", "PySide6"}


class Module(NamedTuple):
    """A source file of the package under the name it is installed as."""

    name: str
    path: Path

    @property
    def part(self) -> str:
        """The row of the layering table, or "" for the package's own __init__."""
        return self.name.partition(".")[2].partition(".")[0]


class Import(NamedTuple):
    """One imported module name, absolute."""

    target: str
    line: int
    lazy: bool

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


def source_folders() -> dict[str, Path]:
    """Installed top-level names of ours -> folders, from pyproject.toml."""
    folders = CONFIG["tool"]["setuptools"]["package-dir"]
    return {name: ROOT / folder for name, folder in folders.items() if folder != "."}


def modules() -> list[Module]:
    found = []
    for package, folder in source_folders().items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found.append(Module(".".join((package, *parts)), path))
    return found


MODULES = modules()
IDS = [module.name for module in MODULES]


def imports_of(module: Module) -> Iterator[Import]:
    """Every import statement, wherever it stands; names of `from a import b` also as a.b, since b may be a module."""
    tree = ast.parse(module.path.read_text(encoding="utf-8"))
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            lazy = True
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, lazy)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy)

    return visit(tree, False)


def test_every_part_is_in_the_table() -> None:
    parts = {module.part for module in MODULES} - {""} - DATA_ONLY
    assert parts <= set(LAYERS), "a new part needs a row in the design's table, and here"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_imports_only_from_above(module: Module) -> None:
    wrong = []
    for item in imports_of(module):
        part = item.target.split(".")[1] if item.top == NAME and "." in item.target else ""
        if part not in LAYERS:  # somebody else's, a name of the package's own __init__, or data
            continue
        if item.lazy and (module.part, part) in LAZY_EXCEPTIONS:
            continue
        if module.part not in LAYERS or LAYERS.index(part) > LAYERS.index(module.part):
            wrong.append(f"{module.path.relative_to(ROOT)}:{item.line} imports {item.target}")
    assert not wrong


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_heavy_imports_stay_where_they_belong(module: Module) -> None:
    wrong = []
    for item in imports_of(module):
        where = f"{module.path.relative_to(ROOT)}:{item.line} imports {item.target}"
        if item.top == "sam2" and module.name != f"{NAME}.model.build" and module.part != "benchmarks":
            wrong.append(where)
        if item.top in {"torchvision", "training"}:
            wrong.append(where)
        if item.top in VIEWER and module.part not in {"plugin", "widgets", "benchmarks"}:
            wrong.append(where)
        if item.target.startswith("qtpy.QtWidgets") and module.part != "widgets":
            wrong.append(where)
        if item.top in HEAVY and not item.lazy and module.part not in HEAVY[item.top]:
            wrong.append(where)
    assert not wrong


def test_packages_are_the_folders() -> None:
    """A folder missing from the list works in an editable install and is absent from the wheel."""
    listed = set(CONFIG["tool"]["setuptools"]["packages"]) - {"napari_uniultra_manifest"}
    folders = {module.name for module in MODULES if module.path.name == "__init__.py"}
    assert listed == folders
    for module in MODULES:
        assert (module.path.parent / "__init__.py").is_file(), f"{module.path.parent} has no __init__.py"


def test_no_module_at_the_root() -> None:
    """The root is the manifest's package: a module there would be shipped."""
    assert not list(ROOT.glob("*.py"))


def test_every_import_is_declared() -> None:
    """An import that works here only because something else pulled the package in breaks at the user's."""

    def names_of(requirements: list[str]) -> set[str]:
        return {requirement.partition(">")[0].lower().replace("_", "-") for requirement in requirements}

    declared = names_of(CONFIG["project"]["dependencies"])
    # What an extra brings may be imported where it is used, and nowhere else.
    extras = set().union(*map(names_of, CONFIG["project"]["optional-dependencies"].values()))
    owners = packages_distributions()
    wrong = []
    for module in MODULES:
        for item in imports_of(module):
            if item.top in sys.stdlib_module_names or item.top == NAME:
                continue
            names = {name.lower().replace("_", "-") for name in owners.get(item.top, [item.top])}
            if not names & (declared | extras if item.lazy else declared):
                wrong.append(f"{module.path.relative_to(ROOT)}:{item.line} imports {item.top}")
    assert not wrong


BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    blocked = {blocked!r}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ImportError(f"{{name}} is blocked in this test")

sys.meta_path.insert(0, Blocker())
from importlib import import_module
for name in {names!r}:
    import_module(name)
"""


def test_everything_above_plugin_works_without_napari_and_qt() -> None:
    above = set(LAYERS[: LAYERS.index("plugin")]) | {""}
    names = [module.name for module in MODULES if module.part in above]
    code = BLOCKER.format(blocked={*VIEWER, "torchvision"}, names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr


def test_ruff_finds_nothing() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
