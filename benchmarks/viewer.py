"""The program whose start is timed: napari, alone or with the panel, up to the first moment it has nothing to do."""

from __future__ import annotations

import os
import sys


def main(panel: str | None = None) -> None:
    """Open napari, with a panel of this package if one is named, say so once it is idle, and end."""
    import napari
    from qtpy.QtCore import QAbstractEventDispatcher

    viewer = napari.Viewer()
    if panel is not None:
        viewer.window.add_plugin_dock_widget("napari-uniultra", panel)
    QAbstractEventDispatcher.instance().aboutToBlock.connect(_report_and_end)
    napari.run()


def _report_and_end() -> None:
    print("idle", flush=True)
    os._exit(0)  # closing takes time, and is not what is measured


if __name__ == "__main__":
    main(*sys.argv[1:])
