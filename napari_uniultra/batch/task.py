"""What a worker is told about one loop, and the fingerprint that says whether its results still hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_uniultra import __version__
from napari_uniultra.batch.loops import Loop
from napari_uniultra.batch.settings import JobSettings, ModelSettings, OutputSettings
from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import files_of
from napari_uniultra.io.writers.prompts import named_masks

_FORMAT = 1  # of results; another number makes all of them anew
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Start:
    """Where a loop starts from.

    Attributes
    ----------
    kind : str
        One of correction, session, prompts (JSON), rows (of a CSV file), mask, template, no_prompt, or empty: none.
    path : Path, optional
        The session, prompts, or mask.
    rows : tuple of mappings
    frame : int
        For a mask of one frame, a template or no_prompt; negative counts from the end.
    template : (loop, mask, frame), optional
    """

    kind: str = ""
    path: Path | None = None
    rows: tuple[Mapping[str, str], ...] = ()
    frame: int = 0
    template: tuple[Path, Path, int] | None = None

    def digest(self) -> list[Any]:
        """Everything of it that results depend on."""
        paths = [self.path] if self.path else []
        if self.template:
            paths += list(self.template[:2])
        inside = [input_sha256(path) for path in paths]
        if self.kind == "prompts":
            inside += [input_sha256(mask) for mask in named_masks(self.path)]
        frame = self.template[2] if self.template else None
        return [self.kind, inside, [dict(row) for row in self.rows], self.frame, frame]


@dataclass(frozen=True)
class LoopTask:
    """One loop to label; small, and made to travel.

    Attributes
    ----------
    loop : Loop
    folder : Path
        Of the job's results.
    start : Start
    rest : str
        Fingerprint of everything but the loop's own file.
    """

    loop: Loop
    folder: Path
    start: Start
    rest: str
    model: ModelSettings
    model_sha256: str
    post: TidySettings
    outputs: OutputSettings
    names: Mapping[int, str] = field(default_factory=dict)
    reference: Path | None = None
    reference_frames: str = "annotated"
    threads: int = 1
    smaller: bool = False

    @property
    def name(self) -> str:
        """The loop's name."""
        return self.loop.name

    def plain(self, error: Exception) -> str:
        """An error in one line, without names of files where the loop's own name hides them."""
        others = [path for path in (self.start.path, self.reference) if path is not None]
        return " ".join(self.loop.plain(str(error), *others).split())

    def on_a_smaller_size(self) -> LoopTask:
        """The same, for a worker that has little memory."""
        return replace(self, smaller=True)


def make_task(loop: Loop, job: JobSettings, start: Start, model_sha256: str, reference: Path | None) -> LoopTask:
    """The task of a loop.

    Raises
    ------
    ReadError
        When its prompts, mask, session or reference cannot be read.
    """
    outputs = {key: value for key, value in asdict(job.outputs).items() if key in ("formats", "contact_sheet")}
    model = {key: value for key, value in asdict(job.model).items() if key not in ("name", "device")}
    parts = [
        _FORMAT,
        __version__,
        model_sha256,
        model,
        asdict(job.post),
        outputs,
        job.objects,
        start.digest(),
        loop.subject,
        None if reference is None else [input_sha256(reference), job.inputs.reference_frames],
    ]
    return LoopTask(
        loop=loop,
        folder=job.folder.absolute(),
        start=start,
        rest=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        model=job.model,
        model_sha256=model_sha256,
        post=job.post,
        outputs=job.outputs,
        names=job.object_names,
        reference=reference,
        reference_frames=job.inputs.reference_frames,
        threads=job.workers.threads,
    )


def input_state(path: Path) -> list[list[int]]:
    """Sizes and times of change of the files that make up an input: quick to compare, and no names in them.

    Raises
    ------
    ReadError
        When it is not there, or not whole.
    """
    try:
        stats = [file.stat() for file in files_of(path)]
    except OSError as error:
        raise ReadError(f"{path.name} cannot be opened", error.strerror or "", "Check the path") from error
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def input_sha256(path: Path) -> str:
    """Hex SHA-256 of the files that make up an input.

    Raises
    ------
    ReadError
    """
    digest = hashlib.sha256()
    try:
        for file in files_of(path):
            name = file.relative_to(path).as_posix() if path in file.parents else file.name
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
    except OSError as error:
        raise ReadError(f"{path.name} cannot be read", error.strerror or "", "Check the path") from error
    return digest.hexdigest()
