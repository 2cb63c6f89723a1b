"""The process of a run: it waits for its turn, trains, and writes down how that ended.

Every run that waits has such a process, and each takes its turn by itself: the queue needs nobody to serve it, and goes
on when the viewer is closed. Whose turn it is decides a lock that a killed process loses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.lock import InUseError, is_running, locked, owner
from napari_uniultra.errors import TrainingError, UniUltraError
from napari_uniultra.runner.history import last_events
from napari_uniultra.runner.place import slot_folder
from napari_uniultra.runner.registry import list_runs
from napari_uniultra.runner.run import JOB, LOG, RESULT, Run, State, ending, now, read_json
from napari_uniultra.runner.train import FAILED, train
from napari_uniultra.training.layout import STOP

_LOOK_S = 0.5
_RESERVED = 8192  # bytes for the result, taken while there is space: the disk may be full when it is wanted
_LOG_TAIL = 20_000


def main(folder: str) -> int:
    """Run the run in a folder: 0 when it came to an end of some kind, 1 when it failed."""
    run = Run(Path(folder))
    result = run.folder / RESULT
    try:
        result.write_bytes(b" " * _RESERVED)
    except OSError as error:
        sys.stderr.write(f"{FAILED}{write_error(result, error)}\n")
        return 1
    state, words = _run(run)
    _fill_in(result, state, words)
    return int(state is State.FAILED)


def _run(run: Run) -> tuple[State, str]:
    try:
        with _turn(run) as is_wanted:
            if not is_wanted:
                return State.STOPPED, "Taken out of the queue"
            reason = _train_in_processes(run) if run.info.processes > 1 else train(run)
            return ending(reason)
    except UniUltraError as error:
        return State.FAILED, str(error)
    except MemoryError:
        return State.FAILED, "There is not enough memory. Choose a smaller input or fewer frames a step."
    except OSError as error:
        return State.FAILED, str(write_error(error.filename or run.folder, error))
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        first = f"{type(error).__name__}: {error}".partition("\n")[0]
        return State.FAILED, f"Something unexpected went wrong: {first}. The log has more."


@contextmanager
def _turn(run: Run) -> Iterator[bool]:
    """Wait until no run trains here and none has waited longer; False when this one is asked to stop meanwhile."""
    while not (run.folder / STOP).exists():
        if _is_first(run):
            with ExitStack() as stack:
                try:
                    stack.enter_context(locked(slot_folder()))
                except InUseError:
                    pass  # another process was quicker
                else:
                    yield True
                    return
        time.sleep(_LOOK_S)
    (run.folder / STOP).unlink(missing_ok=True)
    yield False


def _is_first(run: Run) -> bool:
    """Whether no other run of this computer trains, and none that waits was queued earlier."""
    own = read_json(run.folder / JOB)
    if own.get("pid") != os.getpid():
        return False  # whoever started this process is about to note it
    for other in list_runs():
        if other == run:
            continue
        if any(owner(stage) for stage in other.stages):
            return False
        job = read_json(other.folder / JOB)
        if job and is_running(job) and job.get("queued", "") < own["queued"]:
            return False
    return True


def _train_in_processes(run: Run) -> str:
    """Train with torchrun, a process for each graphics card."""
    count = str(run.info.processes)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", count]
    command = [sys.executable, "-m", *torchrun, "-m", "napari_uniultra.runner.train", str(run.folder)]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise TrainingError("The training stopped", _last_words(run.folder / LOG) or f"its exit code is {code}")
    events = last_events(run.stages[-1])
    return str(events[-1].get("reason", "")) if events else ""


def _last_words(log: Path) -> str:
    """Why a process gave up, by the end of its log."""
    try:
        lines = log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.partition(FAILED)[2] for line in lines if FAILED in line]
    return said[-1] if said else ""


def _fill_in(path: Path, state: State, words: str) -> None:
    """Write the result into the space that was reserved for it."""
    text = json.dumps({"state": state.value, "words": words[: _RESERVED // 8], "time": now()}).encode()
    with suppress(OSError), open(path, "rb+") as file:
        file.write(text.ljust(_RESERVED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
