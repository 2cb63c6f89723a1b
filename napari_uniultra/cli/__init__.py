"""The `uniultra` command: reads its arguments, calls the package, and turns what comes back into an exit code.

Every command is a module of this package with a function ``add_parser``. They import what is heavy when they run, so
that ``uniultra --help`` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from napari_uniultra import __version__
from napari_uniultra.cli import (
    ablate,
    anonymise,
    batch,
    bench,
    data,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    measure,
    segment,
    train,
    weights,
)
from napari_uniultra.cli.exit_codes import EPILOG, INTERRUPTED, OK, UNEXPECTED, exit_code, fail
from napari_uniultra.errors import UniUltraError

# In the order of the help.
_COMMANDS = (
    segment,
    batch,
    measure,
    export,
    anonymise,
    demo,
    weights,
    doctor,
    bench,
    data,
    train,
    distill,
    evaluate,
    ablate,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on the standard error stream."""
    _take_all_letters()
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except UniUltraError as error:
        return fail(str(error), exit_code(error), arguments.traceback)
    except KeyboardInterrupt:
        return fail("stopped", INTERRUPTED, with_traceback=False)
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except MemoryError as error:
        return fail("there is not enough memory", exit_code(error), arguments.traceback)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        return fail(f"unexpected error: {what} (--traceback shows where)", UNEXPECTED, arguments.traceback)


def _take_all_letters() -> None:
    """Let no letter that a terminal cannot show end a command; what another program reads is UTF-8 everywhere."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there is none in a process without a console
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uniultra",
        description="Interactive ultrasound segmentation: a box or a few clicks become a tracked, measured structure.",
        epilog=f"{EPILOG}\nResearch use only: not a medical device.\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"napari-uniultra {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
