"""The process of a run: it waits for its turn, trains, and writes down how that ended."""

from __future__ import annotations

import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from napari_uniultra.core.atomic import write_error
from napari_uniultra.errors import TrainingError, UniUltraError
from napari_uniultra.runner.history import last_events
from napari_uniultra.runner.run import LOG, Run, State, ending
from napari_uniultra.runner.train import FAILED, train
from napari_uniultra.runner.turn import turn

_LOG_TAIL = 20_000


def main(folder: str) -> int:
    """Run the run in a folder: 0 when it came to an end of some kind, 1 when it failed."""
    run = Run(Path(folder))
    state, words = _run(run)
    run.write_result(state, words)
    return int(state is State.FAILED)


def _run(run: Run) -> tuple[State, str]:
    try:
        with turn(run) as is_wanted:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
