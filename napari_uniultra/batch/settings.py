"""A batch job as settings: what ``uniultra batch JOB.yaml`` reads and the Batch panel writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.core.settings import read_file, setting, write_file
from napari_uniultra.core.types import MAX_OBJECT_ID
from napari_uniultra.errors import ConfigError
from napari_uniultra.io.writers import FORMAT_NAMES
from napari_uniultra.model.choices import DEFAULT_MODEL, DEVICES


@dataclass(frozen=True)
class InputSettings:
    """Which loops."""

    loops: tuple[str, ...] = setting(
        (), help="Files, folders (searched with all that is in them) and patterns such as scans/**/*.dcm."
    )
    table: str = setting(
        "",
        help="CSV file with a line a loop. Columns: loop, and where wanted name, subject, prompts, mask, frame, "
        "session, reference. Relative paths start at the table.",
    )
    images: str = setting(
        "loop", choices=("loop", "stills"), help="Whether images in one folder are a loop's frames, or stills."
    )
    references: str = setting(
        "", help="Folder of reference masks, named as the loops: the report then says how well they agree."
    )
    reference_frames: str = setting(
        "annotated",
        choices=("annotated", "all"),
        help="Compare on the frames where the reference shows something, or on all.",
    )


@dataclass(frozen=True)
class StartSettings:
    """Where each loop starts from. What the table names for a loop comes first."""

    prompts: str = setting(
        "",
        help="A folder with NAME.json or NAME.csv (boxes and points), NAME.npz (a session of the viewer) or a mask "
        "NAME.tif, .nrrd, .nii.gz or .png; or one CSV for all loops; or one JSON that holds for every loop.",
    )
    otherwise: str = setting(
        "fail",
        choices=("fail", "no_prompt", "template"),
        help="For loops without prompts: list them as failed, let the model choose, or take a template's mask.",
    )
    frame: int = setting(
        0, help="Frame on which an automatic start or a mask of one frame begins; -1 is the last frame."
    )
    template: str = setting("", help="A loop whose mask is known, for otherwise: template.")
    template_mask: str = setting("", help="The mask of that loop: a file of one frame, or of as many as the loop has.")
    template_frame: int = setting(0, help="The frame of the template that counts; -1 is the last frame.")


@dataclass(frozen=True)
class ModelSettings:
    """What segments."""

    name: str = setting(DEFAULT_MODEL, help="A model's name or path.")
    device: str = setting("auto", choices=DEVICES, help="Where it runs; auto takes the fastest there is.")
    image_size: int | None = setting(
        None, low=64, high=4096, help="Side of the network's input in px, a multiple of 32; empty for the model's own."
    )
    direction: str = setting(
        "both", choices=("forward", "backward", "both"), help="From the prompts to the end, to the beginning, or all."
    )
    zoom: bool | None = setting(
        None, help="Track small structures in close views that follow them; empty for as the model was trained."
    )


@dataclass(frozen=True)
class OutputSettings:
    """What is written, and where."""

    folder: str = setting("", help="Folder for the results.")
    names: str = setting(
        "auto",
        choices=("auto", "files", "codes"),
        help="Names of loops: auto gives DICOM loops code names, since their file names often say who the patient is, "
        "and others the names of their files; files and codes hold for all.",
    )
    identifying: bool = setting(
        True, help="Keep in the folder 'identifying' which file each loop is, with the job and the manifest."
    )
    formats: tuple[str, ...] = setting(
        (), choices=FORMAT_NAMES, help="Formats of the masks besides the TIFF stack that is always written."
    )
    contact_sheet: bool = setting(True, help="A picture of twelve frames with outlines for every loop.")
    parquet: bool = setting(True, help="The table of measurements as Parquet, besides CSV.")
    manifest: bool = setting(
        True, help="In 'identifying', a manifest of the results that the trainers take as a data set."
    )
    report: bool = setting(True, help="An HTML report.")
    report_pictures: int = setting(
        200, low=0, high=5000, help="Loops with pictures and curves in the report: those that most need a look."
    )


@dataclass(frozen=True)
class SlurmSettings:
    """Workers as jobs of a Slurm cluster; needs dask-jobqueue."""

    jobs: int = setting(0, low=0, high=10_000, help="Jobs to ask for, one worker each; 0 uses no Slurm.")
    queue: str = setting("", help="Partition.")
    account: str = setting("", help="Account.")
    time: str = setting("08:00:00", help="Longest time of a job, hours:minutes:seconds.")
    cores: int = setting(4, low=1, help="Cores of a job.")
    gpus: int = setting(0, low=0, help="GPUs of a job.")
    prologue: tuple[str, ...] = setting((), help="Lines to run before the worker, such as module load cuda.")
    directives: tuple[str, ...] = setting((), help="Further #SBATCH directives, such as --nice=100.")


@dataclass(frozen=True)
class WorkerSettings:
    """Who does the work."""

    count: int | None = setting(
        None,
        low=0,
        high=1024,
        help="Processes on this machine; empty for one per GPU, or by cores and memory; 0 works in this process.",
    )
    threads: int = setting(1, low=1, high=256, help="Threads of each worker.")
    memory_gb: float = setting(4.0, low=0.25, high=4096, help="Memory of a worker in GB; one that takes more is ended.")
    scheduler: str = setting("", help="Address of a running Dask scheduler, such as tcp://host:8786.")
    slurm: SlurmSettings = setting(factory=SlurmSettings, help="Workers as Slurm jobs.")


@dataclass(frozen=True)
class JobSettings:
    """A batch job."""

    inputs: InputSettings = setting(factory=InputSettings, help="Which loops.")
    start: StartSettings = setting(factory=StartSettings, help="Where each loop starts from.")
    objects: Mapping[str, str] = setting(factory=dict, help="Names of objects: number to name.")
    model: ModelSettings = setting(factory=ModelSettings, help="What segments.")
    post: TidySettings = setting(factory=TidySettings, help="How masks are tidied.")
    outputs: OutputSettings = setting(factory=OutputSettings, help="What is written, and where.")
    workers: WorkerSettings = setting(factory=WorkerSettings, help="Who does the work.")

    def __post_init__(self) -> None:
        names = {str(number): str(name) for number, name in self.objects.items()}
        if not all(number.isdecimal() and 1 <= int(number) <= MAX_OBJECT_ID for number in names):
            raise ConfigError(f"objects is {dict(self.objects)}", fix="Write objects: {1: lumen, 2: wall}")
        object.__setattr__(self, "objects", names)

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return Path(self.outputs.folder)

    @property
    def object_names(self) -> dict[int, str]:
        """Object id to name."""
        return {int(number): name for number, name in self.objects.items()}


def read_job(path: str | Path, changes: Mapping[str, Any] | None = None) -> JobSettings:
    """Read and check a job file; paths in it are relative to the working folder.

    Raises
    ------
    ConfigError
        Naming the setting that does not fit.
    """
    job = read_file(JobSettings, path, changes)
    check_job(job)
    return job


def check_job(job: JobSettings) -> None:
    """Refuse a job that asks for nothing, or for what cannot go together.

    Raises
    ------
    ConfigError
    """
    if not job.outputs.folder:
        raise ConfigError("The job names no folder for its results", fix="Set outputs.folder")
    if not (job.inputs.loops or job.inputs.table):
        raise ConfigError("The job names no loops", fix="Set inputs.loops or inputs.table")
    if job.start.otherwise == "template" and not (job.start.template and job.start.template_mask):
        raise ConfigError("The job starts from a template but names none", fix="Set start.template and template_mask")
    if job.workers.scheduler and job.workers.slurm.jobs:
        raise ConfigError("The job names both a scheduler and Slurm", fix="Set one of them")
    if job.model.image_size and job.model.image_size % 32:
        raise ConfigError(f"model.image_size is {job.model.image_size}", fix="Choose a multiple of 32")
    folder = Path(os.path.abspath(job.folder))
    inside = next((text for text in job.inputs.loops if Path(os.path.abspath(text)).is_relative_to(folder)), None)
    if inside is not None:
        why = f"the input {inside} is that folder or lies in it, and what lies there is no input"
        raise ConfigError(f"outputs.folder is {job.outputs.folder}", why, "Choose a folder of its own for the results")


def write_job(path: str | Path, job: JobSettings) -> None:
    """Write a job file that `read_job` reads, whole or not at all.

    Raises
    ------
    WriteError
    """
    write_file(job, path)


def with_absolute_paths(job: JobSettings) -> JobSettings:
    """The same job for any working folder."""

    def absolute(text: str) -> str:
        return str(Path(text).absolute()) if text else ""

    inputs, start = job.inputs, job.start
    model = Path(job.model.name)
    return replace(
        job,
        inputs=replace(
            inputs,
            loops=tuple(map(absolute, inputs.loops)),
            table=absolute(inputs.table),
            references=absolute(inputs.references),
        ),
        start=replace(
            start,
            prompts=absolute(start.prompts),
            template=absolute(start.template),
            template_mask=absolute(start.template_mask),
        ),
        model=replace(job.model, name=str(model.absolute()) if model.exists() else job.model.name),
        outputs=replace(job.outputs, folder=absolute(job.outputs.folder)),
    )
