"""napari plays a loop as fast as it was acquired."""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtCore import QTimer

from napari_uniultra.plugin.layers import METADATA_KEY

_followed: weakref.WeakSet[Any] = weakref.WeakSet()


def follow(viewer: Any) -> None:
    """From now on every loop of ours that comes into a viewer sets the speed of its slider."""
    if viewer not in _followed and getattr(viewer, "window", None) is not None:
        _followed.add(viewer)
        viewer.layers.events.inserted.connect(lambda event: _on_inserted(viewer, event.value))


def frame_rate(layer: Any) -> float | None:
    """Frames per second of a loop of ours, over the whole of it; None for other layers and unknown times."""
    times = layer.metadata.get(METADATA_KEY, {}).get("frame_times_s")
    if times is None or len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / float(times[-1] - times[0])


def _on_inserted(viewer: Any, layer: Any) -> None:
    rate = frame_rate(layer)
    if rate is not None and layer.ndim == 3:
        # The slider itself is made by the viewer's own answer to this event.
        reference = weakref.ref(viewer)
        QTimer.singleShot(0, lambda: _set_rate(reference(), layer, rate))


def _set_rate(viewer: Any, layer: Any, rate: float) -> None:
    if viewer is None or layer not in viewer.layers:
        return
    # napari's own setting of the speed is one for all loops and is kept on the disk; a slider has one of its own, to
    # which there is no public way.
    sliders = viewer.window._qt_viewer.dims.slider_widgets
    axis = viewer.dims.ndim - layer.ndim
    if axis < len(sliders):
        sliders[axis].fps = rate
