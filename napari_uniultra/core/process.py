"""What tells a process from all others, and whether it lives: numbers of processes are used again."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

Process = dict[str, Any]  # pid, started, host, boot, machine, cards, as `describe_process` has them
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19  # of /proc/PID/stat, counted from the field behind the command's name
_CARDS = Path("/sys/class/net")
_NOT_MAKERS = 3  # bits of an address's first byte: for a group, or given by a system, as virtual machines share them
_RANDOM = 1 << 40  # the bit of a number that stands in for a network card's where there is none


def this_process() -> Process:
    """What tells this process from all others."""
    return describe_process(os.getpid())


def describe_process(pid: int) -> Process:
    """What tells a process of this computer from all others, also from a later one of the same number.

    Raises
    ------
    psutil.NoSuchProcess
    """
    return {"pid": pid, "started": _started(pid), **_computer()}


def is_here(process: Process) -> bool:
    """Whether a process is, or was, one of this computer.

    A computer may be given another name while it is on. After a restart its number has to be the same, and its name or
    its network cards: a disk may be shared with copies of one installation.
    """
    own = _computer()
    same = {name for name in own if process.get(name) == own[name]}
    if "boot" in same or {"host", "machine"} <= same:
        return True
    is_known = bool(own["machine"] and own["cards"]) and {"machine", "cards"} <= same
    return is_known and _boot_of(process) != _boot_of(own)  # else a container of this computer, under its own name


def is_running(process: Process) -> bool:
    """Whether a process lives. One of another computer cannot be seen from here, and counts as living."""
    if not is_here(process):
        return True
    try:
        is_same = _started(process["pid"]) == process.get("started")  # else a new one of its number
        return is_same and psutil.Process(process["pid"]).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def is_of(process: Process, started: Process) -> bool:
    """Whether a process of this computer is one that was started, or its child.

    On Windows the Python of an environment starts another one, and leaves the work to it.
    """
    pid, parent = process.get("pid"), started.get("pid")
    try:
        return pid == parent or psutil.Process(pid).ppid() == parent
    except psutil.Error:
        return False


def this_boot() -> str:
    """A word that no other computer has now; on Linux, also no container that sees other processes."""
    with suppress(OSError):
        return f"{_BOOT_ID.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    card = uuid.getnode()
    return socket.gethostname() if card & _RANDOM else f"{card:012x}"


def _computer() -> Process:
    """What tells this computer from others: ``boot`` while it is on, the others for good.

    Many a container has no number; on Linux that of the boot stands in for it.
    """
    machine = _first_line(*_MACHINE_IDS, _BOOT_ID)
    return {"boot": this_boot(), "host": socket.gethostname(), "machine": machine, "cards": _cards()}


def _boot_of(process: Process) -> str:
    """What all containers of a computer share while it is on."""
    return str(process.get("boot", "")).partition(" ")[0]


def _cards() -> str:
    """The addresses that their makers gave to a Linux computer's network cards; "" where there are none."""
    found = sorted({_first_line(card.parent / "address") for card in _CARDS.glob("*/device")})
    return " ".join(address for address in found if address.strip("0:") and not int(address[:2], 16) & _NOT_MAKERS)


def _started(pid: int) -> str:
    """When a process began, in a form that setting the clock does not change."""
    if sys.platform == "darwin":  # there psutil shifts times by how far the clock was set since it was imported,
        return str(psutil.Process(pid)._ident[1])  # but not the one by which it tells processes apart
    if not sys.platform.startswith("linux"):
        return str(psutil.Process(pid).create_time())
    try:  # psutil adds the time of the boot, which moves with the clock
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    except PermissionError as error:
        raise psutil.AccessDenied(pid) from error
    return f"{_first_line(_BOOT_ID)} {int(fields[_START_FIELD])}"


def _first_line(*paths: Path) -> str:
    """Of the first file that says something; "" where there is none."""
    for path in paths:
        with suppress(OSError, ValueError):
            if line := path.read_text(encoding="ascii").strip():
                return line
    return ""
