"""The viewer comes first: a thread that computes gives way to the one that draws."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

_NICENESS = 10  # a thread of the viewer then gets nine tenths of a core that both want
_BELOW_NORMAL = -1  # Windows' THREAD_PRIORITY_BELOW_NORMAL
# Seconds after which a thread that runs Python code lets another one do so. Each of the hundreds of calls that draw a
# frame may have to wait this long for its turn; Python's own value is 5 ms.
_SWITCH_S = 0.0005


def give_way() -> None:
    """Call in a thread that computes, before it starts threads of its own: they inherit its priority."""
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
    if sys.platform == "linux":
        # Linux gives each thread a niceness of its own, by the id that the system knows it by.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    elif sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetThreadPriority(kernel.GetCurrentThread(), _BELOW_NORMAL)
