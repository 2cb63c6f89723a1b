"""Why a training ended, what follows from that, and how it is told."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """A reason to end, as the event ``end`` has it.

    Attributes
    ----------
    told : str
        The beginning of a line in a terminal, before "after step 3".
    words : str
        For a list of runs; "" where there is nothing to say.
    """

    DONE = "done", "Done", ""
    NO_IMPROVEMENT = "no improvement", "Stopped, since validation got no better,", "Validation got no better"
    STOP_FILE = "stop file", "Stopped by the file STOP", "Stopped with a checkpoint; Resume goes on"
    TIME = "time", "Stopped, since the time is up,", "The time limit is reached; Resume goes on"
    INTERRUPTED = "interrupted", "Stopped", "Interrupted, with a checkpoint; Resume goes on"
    TERMINATED = "terminated", "Stopped", "The computer asked it to end; there is a checkpoint, and Resume goes on"

    told: str
    words: str

    def __new__(cls, value: str, told: str, words: str) -> Ending:
        """Give a reason its words: one without them cannot be made."""
        member = str.__new__(cls, value)
        member._value_, member.told, member.words = value, told, words
        return member

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing to go on with."""
        return self in (Ending.DONE, Ending.NO_IMPROVEMENT)

    @property
    def is_signal(self) -> bool:
        """Whether a person or the system asked the process to end."""
        return self in (Ending.INTERRUPTED, Ending.TERMINATED)

    @property
    def is_urgent(self) -> bool:
        """Whether it has to be quick: somebody waits for the computer."""
        return self in (Ending.TIME, Ending.TERMINATED)
