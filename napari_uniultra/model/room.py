"""Whether the machine has the memory that a model needs."""

from __future__ import annotations

import psutil

from napari_uniultra.errors import ResourceError

_NUMBER = 4  # bytes of a weight in a network, which computes in float32


def memory_to_load(size_bytes: int, weights: int) -> int:
    """Bytes of memory that loading a model takes: its weights as they are stored, and again in the network."""
    return size_bytes + _NUMBER * weights


def is_too_large(size_bytes: int, weights: int) -> bool:
    """Whether a model that has so many weights, in so many bytes, can never be loaded on this machine."""
    return memory_to_load(size_bytes, weights) > psutil.virtual_memory().total


def check_room(label: str, size_bytes: int, weights: int) -> None:
    """Refuse a model for which there is no memory, before the system runs short of it.

    Raises
    ------
    ResourceError
    """
    needed, memory = memory_to_load(size_bytes, weights), psutil.virtual_memory()
    if needed > memory.available:
        raise ResourceError(
            f"There is too little memory for the model {label!r}",
            f"it needs {_gb(needed)} to load, and {_gb(memory.available)} of {_gb(memory.total)} are free",
            "Close other programs, or choose a smaller model",
        )


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
