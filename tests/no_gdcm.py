"""Code in a process without GDCM, which ends the whole program at some damaged files."""

from __future__ import annotations

import subprocess
import sys


def run_without_gdcm(code: str, *arguments: object) -> None:
    """Run Python code, which finds the arguments as text in ``sys.argv[1:]``, and check that it ends well."""
    command = [sys.executable, "-c", f"import sys; sys.modules['gdcm'] = None\n{code}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
