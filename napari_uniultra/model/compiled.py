"""Functions that PyTorch compiles when they are first called, for devices whose time goes into starting small steps."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils._pytree import tree_map_only

from napari_uniultra.core.places import cache_folder

_log = logging.getLogger(__name__)

_BACKEND = "inductor"
# The last is how older CUDA graphs refuse a thread that is not the one they were recorded in.
_CANNOT_COMPILE = (TorchDynamoException, FailOnRecompileLimitHit, AssertionError)


class Compiled:
    """Computes what a function computes, to rounding. The first call takes seconds to minutes, and says how long.

    What was compiled is kept on disk, so that another process takes less time. Where compiling fails, as without a
    compiler on this machine, the function is called as it is, and that is said once.

    Parameters
    ----------
    function : callable
        From tensors to a tensor, or tuples, lists and dictionaries of tensors.
    name : str
        For what is said.
    graphs : bool
        Record the steps of each shape of the input once and replay them (CUDA graphs), on devices that can. For
        functions that meet few shapes.
    """

    def __init__(self, function: Callable[..., Any], name: str, *, graphs: bool = True) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
        self._function, self._name = function, name
        mode = "reduce-overhead" if graphs and _BACKEND == "inductor" else None
        self._compiled: Callable[..., Any] | None = torch.compile(function, fullgraph=True, mode=mode, backend=_BACKEND)
        self._has_run = False

    @property
    def is_compiled(self) -> bool:
        """Whether it may still be called compiled, and not as it is."""
        return self._compiled is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, in memory of its own."""
        if self._compiled is None:
            return self._function(*args, **kwargs)
        start = time.monotonic()
        try:
            result = self._compiled(*args, **kwargs)
        except _CANNOT_COMPILE as error:
            _log.warning("The %s could not be compiled (%s); it runs as it is", self._name, type(error).__name__)
            self._compiled = None
            return self._function(*args, **kwargs)
        if not self._has_run:
            self._has_run = True
            _log.info("The %s was compiled in %.0f s", self._name, time.monotonic() - start)
        return tree_map_only(torch.Tensor, torch.clone, result)  # a replay would overwrite it
