"""Whether the machine has the memory that a model needs."""

from __future__ import annotations

import psutil

from napari_uniultra.errors import ResourceError

_COPIES = 2  # while a model loads, its weights are there as read and in the network


def memory_to_load(size_bytes: int) -> int:
    """Bytes of memory that loading a checkpoint of that size takes at least."""
    return _COPIES * size_bytes


def is_too_large(size_bytes: int) -> bool:
    """Whether a checkpoint of that size can never be loaded on this machine."""
    return memory_to_load(size_bytes) > psutil.virtual_memory().total


def check_room(label: str, size_bytes: int) -> None:
    """Refuse a model for which there is no memory, before the system runs short of it.

    Raises
    ------
    ResourceError
    """
    needed, memory = memory_to_load(size_bytes), psutil.virtual_memory()
    if needed > memory.available:
        raise ResourceError(
            f"There is too little memory for the model {label!r}",
            f"it needs {_gb(needed)} to load, and {_gb(memory.available)} of {_gb(memory.total)} are free",
            "Close other programs, or choose a smaller model",
        )


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
