"""What to do when memory runs out (free some, then the CPU) or half precision does not do (full precision)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch

from napari_uniultra.errors import ResourceError
from napari_uniultra.model.attempt import attempt
from napari_uniultra.model.device import copied_to
from napari_uniultra.segment.predictor import HalfPrecisionError

T = TypeVar("T")


class Host(Protocol):
    """What runs the work: it holds a model and can free memory."""

    model: Any

    def free_memory(self) -> None:
        """Drop what is kept for speed alone."""


def run_with_fallback(host: Host, work: Callable[[], T], notify: Callable[[str], None]) -> T:
    """Run ``work``; in full precision where half does not do; out of memory free some and run again, then on the CPU.

    ``work`` must leave no trace when it fails. Recovery happens outside the ``except`` block, because the exception
    holds references to the tensors that have to go.

    Raises
    ------
    ResourceError
        If the memory does not suffice on the CPU either.
    """
    done, value = _attempt_precisely(host, work, notify)
    if done:
        return value
    _free(host)
    done, value = _attempt_precisely(host, work, notify)
    if done:
        return value
    if host.model.device.type != "cpu":
        notify("The graphics card ran out of memory. The session goes on on the CPU, more slowly; nothing was lost.")
        copied, model = attempt(lambda: _on_cpu(host.model))
        if copied:
            host.model = model
            _free(host)
            done, value = attempt(work)
        if done:
            return value
    raise ResourceError(
        "There is not enough memory to segment this frame",
        "even after freeing everything that could be freed",
        "Close other programs, or choose a model with a smaller input",
    )


def _attempt_precisely(host: Host, work: Callable[[], T], notify: Callable[[str], None]) -> tuple[bool, T | None]:
    try:
        return attempt(work)
    except HalfPrecisionError:
        notify("Numbers became too large for half precision. The session goes on in full precision, more slowly.")
        host.model = replace(host.model, half=False)
    return attempt(work)


def _free(host: Host) -> None:
    host.free_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _on_cpu(model: Any) -> Any:
    device = torch.device("cpu")
    return replace(model, network=copied_to(model.network, device), device=device, half=False, compiled=False)
