"""The exit codes of the `uniultra` command, which error has which, and how it is told."""

from __future__ import annotations

import sys

from napari_uniultra.core.settings import ConfigError
from napari_uniultra.errors import (
    CheckpointError,
    PromptError,
    ReadError,
    ResourceError,
    TrainingError,
    WriteError,
)

OK, UNEXPECTED, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 9, 130
EPILOG = """\
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
"""
_OF_ERRORS: dict[type[Exception], int] = {
    ConfigError: USAGE,
    ReadError: 3,
    CheckpointError: 4,
    PromptError: 5,
    ResourceError: 6,
    MemoryError: 6,
    WriteError: 7,
    TrainingError: 8,
}


def exit_code(error: Exception) -> int:
    """The exit code that stands for an error."""
    return next((code for kind, code in _OF_ERRORS.items() if isinstance(error, kind)), UNEXPECTED)


def fail(message: str, code: int, with_traceback: bool) -> int:
    """Tell what went wrong, in one line on the standard error stream; returns the code."""
    if with_traceback:
        import traceback

        traceback.print_exc()
    line = " ".join(message.split())
    print(f"uniultra: {line}", file=sys.stderr)
    return code
