"""The errors a user of this package meets: each says what happened, why, and what to do."""

from __future__ import annotations


class UniUltraError(Exception):
    """Base of every error this package raises for something outside its control. It reads "What: why. Fix".

    Parameters
    ----------
    what : str
        What happened, in a sentence fragment that names the file, frame or object concerned.
    why : str, optional
        The reason, as far as it is known.
    fix : str, optional
        What the user can do about it.
    """

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        happened = ": ".join(part.rstrip(".") for part in (what, why) if part)
        super().__init__(" ".join(_sentence(part) for part in (happened, fix) if part))


def _sentence(words: str) -> str:
    return words if words.endswith(("?", "!")) else f"{words.rstrip('.')}."


class ReadError(UniUltraError):
    """A file cannot be read as an ultrasound loop or image."""


class WriteError(UniUltraError):
    """A result cannot be written; nothing that existed before was touched."""


class CheckpointError(UniUltraError):
    """A checkpoint is missing, damaged, unsafe, or does not fit the network."""


class PromptError(UniUltraError):
    """A prompt (box, point or mask) cannot be used as given."""


class ResourceError(UniUltraError):
    """The machine lacks what is needed: memory, disk space, or a device."""


class TrainingError(UniUltraError):
    """Training cannot go on as it is, such as when the loss is not a number."""


class ConfigError(UniUltraError):
    """A configuration of a training run or a batch job cannot be used."""
