"""One loop from its prompts to files: what `uniultra segment` and `uniultra demo` have in common."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra import __version__
from napari_uniultra.cli.exit_codes import INTERRUPTED, OK
from napari_uniultra.cli.outputs import check_replaced
from napari_uniultra.core.atomic import check_writable, set_aside
from napari_uniultra.core.own_files import contents, is_own, read_record, recorded, write_record
from napari_uniultra.errors import PromptError, WriteError

if TYPE_CHECKING:
    from napari_uniultra.core.masks import Masks
    from napari_uniultra.core.types import Cine, Direction
    from napari_uniultra.io.writers import ObjectPrompts
    from napari_uniultra.segment.session import CineSession

MASKS, MEASUREMENTS, OVERLAY = "masks.tif", "measurements.csv", "overlay.mp4"
CONTACT_SHEET, PROMPTS, RUN = "contact_sheet.png", "prompts.json", "run.json"
OUTPUTS = (MASKS, MEASUREMENTS, OVERLAY, CONTACT_SHEET, PROMPTS)
_ABOUT = {"complete": False, "version": __version__, "note": "Research use only: not a medical device."}


@dataclass(frozen=True)
class Job:
    """What to segment, how, and where to.

    Attributes
    ----------
    cine : Cine
    objects : sequence of ObjectPrompts
    out : Path
        Folder, made when it is missing. Files in it that are not ours stay as they are.
    model, device : str
        As `load_model` takes them.
    direction, start, stop
        As `CineSession.propagate` takes them.
    zoom : bool or None
        As `CineSession.zoom`.
    formats : tuple of str
        Names of formats in which the masks are written as well, of `io.writers.FORMAT_NAMES`.
    """

    cine: Cine
    objects: Sequence[ObjectPrompts]
    out: Path
    model: str
    device: str = "auto"
    direction: Direction = "both"
    zoom: bool | None = None
    start: int | None = None
    stop: int | None = None
    formats: tuple[str, ...] = ()


def output_paths(out: Path, formats: Sequence[str] = ()) -> list[Path]:
    """The files and folders that a job writes."""
    return list(dict.fromkeys([*_results(out, formats), out / RUN]))


def _results(out: Path, formats: Sequence[str]) -> list[Path]:
    return [*(out / name for name in OUTPUTS), *(_path_of_format(out, name) for name in formats)]


def finish(job: Job, force: bool) -> int:
    """Segment and write, unless the results of this very job are there; say what is there, and return the exit code.

    Parameters
    ----------
    force : bool
        Write in any case, over whatever has the names of results.

    Raises
    ------
    WriteError
        Without ``force``, when the folder holds files of these names that no run wrote, or that were changed since.
    """
    from napari_uniultra.model.catalogue import model_sha256

    code = OK
    if not force and already_done(job, model_sha256(job.model)):
        print("uniultra: the results are there already (--force computes them again)", file=sys.stderr)
    else:
        if not force:
            check_replaced(job.out / RUN, _results(job.out, job.formats))
        code = run_job(job)
    for path in output_paths(job.out, job.formats):
        print(path)
    return code


def run_job(job: Job) -> int:
    """Segment and write; returns OK, or INTERRUPTED when Ctrl-C ended the tracking and what was finished is written."""
    from napari_uniultra.model.load import load_model
    from napari_uniultra.segment.session import CineSession

    check_writable(job.out)  # before any work is done for nothing
    _check_formats(job)
    model = load_model(job.model, device=job.device)
    session = CineSession(job.cine, model, on_notice=lambda text: print(f"uniultra: {text}", file=sys.stderr))
    session.zoom = job.zoom
    for entry in job.objects:
        session.name_object(entry.id, entry.name)
        for frame, prompt in sorted(entry.frames.items()):
            session.set_prompt(entry.id, frame, prompt)
    complete = _track(session, job)
    _write(session, job, complete)
    return OK if complete else INTERRUPTED


def _check_formats(job: Job) -> None:
    """Refuse what could not be written, before any work is done for nothing."""
    for name in job.formats:
        _check_folder(_path_of_format(job.out, name), job.out)
    if "dicom" in job.formats and job.cine.details.get("format") != "DICOM":
        raise WriteError("A DICOM segmentation cannot be written", "the loop is not a DICOM file")


def _check_folder(path: Path, out: Path) -> None:
    """Refuse to replace a folder in which something is that no run left as it is."""
    if path.is_dir() and contents(path) and not is_own(path, read_record(out / RUN)):
        raise WriteError(f"{path} exists already", fix="Remove it, or choose another folder for the results")


def _path_of_format(out: Path, name: str) -> Path:
    """The file or folder for masks in a further format."""
    from napari_uniultra.io.writers import usual_path

    return usual_path(out, name)


def already_done(job: Job, model_sha256: str) -> bool:
    """Whether the folder holds the complete results of this very job, as its run left them.

    Of folders, records of earlier versions say nothing.
    """
    record = read_record(job.out / RUN)
    same = record.get("complete") is True and record.get("fingerprint") == fingerprint(job, model_sha256)
    return same and all(
        is_own(path, record) or (path.name not in record["files"] and path.is_dir() and contents(path))
        for path in _results(job.out, job.formats)
    )


def fingerprint(job: Job, model_sha256: str) -> str:
    """Hex SHA-256 of everything that the results depend on."""
    prompts = [
        [entry.id, entry.name, frame, prompt.box, prompt.points, prompt.labels, prompt.rounds, _mask_key(prompt.mask)]
        for entry in job.objects
        for frame, prompt in sorted(entry.frames.items())
    ]
    cine = [job.cine.key, job.cine.spacing_mm, _times(job.cine)]
    parts = [
        __version__,
        cine,
        model_sha256,
        prompts,
        job.direction,
        job.zoom,
        job.start,
        job.stop,
        *sorted(job.formats),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _mask_key(mask: Any) -> str | None:
    return None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest()


def _times(cine: Cine) -> list[float] | None:
    return None if cine.frame_times_s is None else [float(time) for time in cine.frame_times_s]


def _track(session: CineSession, job: Job) -> bool:
    """Track through the loop with a progress bar; False when Ctrl-C ended it."""
    from tqdm import tqdm

    how: dict[str, Any] = {"start": job.start, "stop": job.stop}
    total = session.frames_to_propagate(job.direction, **how)
    if not total:
        begin = "the prompts" if job.start is None else f"frame {job.start}"
        why = f"{job.direction} from {begin} there is no way to frame {job.stop}"
        raise PromptError("There is no frame to visit", why, "Give another --start, --stop or --direction")
    steps = session.propagate(job.direction, **how)
    try:
        with closing(steps), tqdm(total=total, unit="frame", desc="Tracking", dynamic_ncols=True) as bar:
            for _ in steps:
                bar.update()
    except KeyboardInterrupt:
        print("uniultra: stopped; writing what is finished", file=sys.stderr)
        return False
    return True


def _write(session: CineSession, job: Job, complete: bool) -> None:
    """Write everything; of what is there, also after a crash, the record says that it is ours."""
    from napari_uniultra.core.masks import Masks
    from napari_uniultra.core.measure import measurement_rows
    from napari_uniultra.io.writers import (
        write_contact_sheet,
        write_masks_tiff,
        write_measurements_csv,
        write_overlay_video,
        write_prompts,
    )

    cine, out, names, masks = job.cine, job.out, session.names, session.masks
    steps = (session.step(frame) for frame in session.frames_with_results)
    writers: dict[str, Callable[[Path], object]] = {
        MASKS: lambda path: write_masks_tiff(path, masks, cine.spacing_mm, cine.frame_times_s),
        MEASUREMENTS: lambda path: write_measurements_csv(path, measurement_rows(cine, steps, names)),
        PROMPTS: lambda path: write_prompts(path, job.objects),
        CONTACT_SHEET: lambda path: write_contact_sheet(path, cine, masks),
        OVERLAY: lambda path: write_overlay_video(path, cine, masks, names),
    }
    for name in job.formats:
        path = _path_of_format(out, name)
        writers.setdefault(path.name, partial(_write_format, masks=Masks.of_cine(cine, masks, names), name=name))
    write_record(out / RUN, _ABOUT)  # from here on the folder does not hold an earlier run's results any more
    for name, write in writers.items():
        _check_folder(out / name, out)  # it may have been changed while the work was done
        with recorded(out / RUN, _ABOUT, out / name):
            write(out / name)
    model = session.model
    record = {
        **_ABOUT,
        "complete": complete,
        "fingerprint": fingerprint(job, model.sha256),
        "frames": len(cine),
        "frames_with_results": len(session.frames_with_results),
        "model": {"name": model.name, "sha256": model.sha256, "image_size": model.image_size},
    }
    write_record(out / RUN, record)


def _write_format(path: Path, masks: Masks, name: str) -> None:
    from napari_uniultra.io.writers import write_masks

    with set_aside(path) if path.is_dir() else nullcontext():  # its writer takes no folder that has something in it
        write_masks(path, masks, name)
