"""Work that may need more memory than there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
# In what PyTorch, the CPU's allocator, the system, CUDA, cuBLAS and cuDNN say.
_NO_MEMORY = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "unable to find an engine",
)


def attempt(work: Callable[[], T]) -> tuple[bool, T | None]:
    """Whether ``work`` had enough memory, and what it returned."""
    try:
        return True, work()
    except (torch.OutOfMemoryError, MemoryError):
        return False, None
    except RuntimeError as error:
        # The CPU's allocator, Macs and some drivers raise a plain RuntimeError.
        if any(words in str(error).lower() for words in _NO_MEMORY):
            return False, None
        raise
