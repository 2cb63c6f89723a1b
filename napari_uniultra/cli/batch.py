"""`uniultra batch`: label folders of loops, on one machine or many."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.exit_codes import OK, SOME_FAILED

if TYPE_CHECKING:
    from napari_uniultra.batch.settings import JobSettings


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "batch",
        help="label folders of loops",
        description="Segments all loops that a job file names, measures them, and writes a report that shows first "
        "what needs a look. A second run does only what is missing or changed. See docs/batch.md for the job file.",
    )
    parser.add_argument("job", type=Path, metavar="JOB.yaml", help="the job; --template writes one to begin with")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--template", action="store_true", help="write JOB.yaml with every setting and its default")
    what.add_argument("--list", action="store_true", help="say which loops there are and what each starts from")
    what.add_argument("--open", metavar="NAME", help="open a loop's session in napari, to correct it")
    what.add_argument(
        "--take-in", nargs=2, metavar=("NAME", "FILE"), help="take a corrected session file of a loop into the results"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes on this machine; 0 for none but this one")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--force", action="store_true", help="replace files of results' names that no batch wrote")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every loop that ends")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what the options ask for; 9 when some loops failed."""
    with _ends_gracefully():
        return _run_command(arguments)


@contextmanager
def _ends_gracefully() -> Iterator[None]:
    """The signal to end (of the panel's Stop, of Slurm) counts as Ctrl-C: what is finished is summed up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _run_command(arguments: argparse.Namespace) -> int:
    from napari_uniultra.batch.settings import JobSettings, read_job, write_job

    if arguments.template:
        return _write_template(arguments.job, JobSettings(), write_job)
    changes = {"workers.count": arguments.workers, "workers.scheduler": arguments.scheduler}
    job = read_job(arguments.job, {name: value for name, value in changes.items() if value is not None})
    if arguments.list:
        return _list(job)
    if arguments.open is not None:
        return _open(job, arguments.job, arguments.open)
    if arguments.take_in is not None:
        from napari_uniultra.batch.corrections import take_in

        print(take_in(job, arguments.take_in[0], Path(arguments.take_in[1])))
        return 0
    return _run(job, arguments.json, arguments.force)


def _write_template(path: Path, job: JobSettings, write: Any) -> int:
    from napari_uniultra.errors import WriteError

    if path.exists():
        raise WriteError(f"{path} exists already", fix="Choose another name")
    write(path, job)
    print(path)
    return 0


def _list(job: JobSettings) -> int:
    from napari_uniultra.batch.run import make_plan
    from napari_uniultra.batch.settings import with_absolute_paths

    plan = make_plan(with_absolute_paths(job))
    for task in plan.tasks:
        print(f"{task.name}\t{task.start.kind or 'nothing to start from'}\t{task.loop.path}")
    for failure in plan.failures:
        print(f"{failure.name}\tfailed\t{failure.reason}")
    return SOME_FAILED if plan.failures else OK


def _open(job: JobSettings, job_file: Path, name: str) -> int:
    """The viewer runs in a process of its own: commands work without it. What it could not show is told before."""
    from napari_uniultra.batch.corrections import find_task, session_of

    session_of(find_task(job, name))
    command = [sys.executable, "-m", "napari_uniultra.widgets.batch_open", str(job_file), name]
    return subprocess.run(command).returncode


def _run(job: JobSettings, as_json: bool, force: bool) -> int:
    from napari_uniultra.batch.run import run_job
    from napari_uniultra.core.words import counted

    if as_json:
        summary = run_job(job, lambda event: print(json.dumps(event), flush=True), force)
    else:
        with _Bar() as bar:
            summary = run_job(job, bar.show, force)
        for failure in summary.failures:
            print(f"uniultra: {failure.name}: {failure.reason}", file=sys.stderr)
        failed = f", {len(summary.failures):,} failed" if summary.failures else ""
        print(f"{counted(summary.done, 'loop')} done, {summary.unchanged:,} unchanged{failed}", file=sys.stderr)
        for path in summary.written:
            print(path)
    return SOME_FAILED if summary.failures else OK


class _Bar:
    """A bar of loops, with frames per second, time left and failures."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=0, unit="loop", desc="Labelling", dynamic_ncols=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, event: Mapping[str, Any]) -> None:
        """Take an event of a batch."""
        if event["event"] == "start":
            self._bar.reset(total=event["loops"])
        elif event["event"] == "loop":
            progress = event["progress"]
            self._bar.update()
            self._bar.set_postfix_str(f"{progress['frames_per_s']:.1f} frames/s, {progress['failed']} failed")
