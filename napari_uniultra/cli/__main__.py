"""`python -m napari_uniultra.cli` is `uniultra`, where the script is not on the path."""

from __future__ import annotations

import sys

from napari_uniultra.cli import main

if __name__ == "__main__":
    sys.exit(main())
