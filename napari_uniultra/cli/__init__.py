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
from napari_uniultra.core.settings import ConfigError
from napari_uniultra.errors import (
    CheckpointError,
    PromptError,
    ReadError,
    ResourceError,
    TrainingError,
    UniUltraError,
    WriteError,
)

OK, UNEXPECTED, USAGE, INTERRUPTED = 0, 1, 2, 130
_EXIT_CODES: dict[type[Exception], int] = {
    ConfigError: USAGE,
    ReadError: 3,
    CheckpointError: 4,
    PromptError: 5,
    ResourceError: 6,
    MemoryError: 6,
    WriteError: 7,
    TrainingError: 8,
}
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
_EPILOG = """\
exit codes:
  0    done
  1    an error that was not expected
  2    the command or its configuration was not understood
  3    the loop or image cannot be read
  4    the checkpoint is missing, damaged, unsafe or does not fit
  5    a prompt cannot be used
  6    memory, disk space, network or a device is missing
  7    a result cannot be written
  8    training cannot go on: its loss is not a number
  9    some loops of a batch failed; the others are done
  130  stopped with Ctrl-C; what was finished is kept

Research use only: not a medical device.
"""


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


def exit_code(error: Exception) -> int:
    """The exit code that stands for an error."""
    return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), UNEXPECTED)


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
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"napari-uniultra {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def fail(message: str, code: int, with_traceback: bool) -> int:
    """Tell what went wrong, in one line on the standard error stream; returns the code."""
    if with_traceback:
        import traceback

        traceback.print_exc()
    line = " ".join(message.split())
    print(f"uniultra: {line}", file=sys.stderr)
    return code
