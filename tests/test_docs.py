"""What the documentation's examples import is there."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

_IMPORT = re.compile(r"^ *from (napari_uniultra[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def test_every_import_in_the_documentation_works(repo_root: Path) -> None:
    pages = [repo_root / "README.md", *sorted((repo_root / "docs").glob("*.md"))]
    imports = [(page.name, *found) for page in pages for found in _IMPORT.findall(page.read_text())]
    assert len(imports) > 15
    for page, module, names in imports:
        for name in names.split(", "):
            if not (hasattr(import_module(module), name) or find_spec(f"{module}.{name}")):
                pytest.fail(f"{page}: {module} has no {name}")
