"""One loop from its file to its results. Runs in a worker process; nothing here raises for a loop that is bad."""

from __future__ import annotations

import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_uniultra.batch.agreement import COLUMNS, compare
from napari_uniultra.batch.results import (
    AGREEMENT,
    MASKS,
    MEASUREMENTS,
    SESSION,
    SHEET,
    clear_loop,
    holds,
    loop_folder,
    read_record,
    write_record,
)
from napari_uniultra.batch.review import review
from napari_uniultra.batch.starts import begin
from napari_uniultra.batch.task import LoopTask, input_sha256, input_state
from napari_uniultra.core.csv_table import write_table
from napari_uniultra.core.masks import Masks
from napari_uniultra.core.measure import Measurement, measurement_rows, with_area_change
from napari_uniultra.core.postprocess import TidySettings
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, ResourceError, UniUltraError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.writers import (
    usual_path,
    write_contact_sheet,
    write_masks,
    write_masks_tiff,
    write_measurements_csv,
)

if TYPE_CHECKING:
    from napari_uniultra.segment.state import SessionState

DONE, UNCHANGED, FAILED = "done", "unchanged", "failed"
_ON_DISK = 256 << 20  # bytes; label stacks above lie in a temporary file rather than in memory


@dataclass(frozen=True)
class Outcome:
    """What became of a loop.

    Attributes
    ----------
    status : str
        done, unchanged or failed.
    kind : str
        Of a failure: the name of its error.
    reason : str
        Of a failure, in words and without patient data.
    frames : int
    seconds : float
    """

    name: str
    status: str
    kind: str = ""
    reason: str = ""
    frames: int = 0
    seconds: float = 0.0


def label_loop(task: LoopTask) -> Outcome:
    """Label one loop and write its results, unless they are there.

    A loop that memory does not suffice for is tried once more on a smaller size.
    """
    started = time.perf_counter()
    try:
        if holds(task, read_record(task.folder, task.name)):
            return Outcome(task.name, UNCHANGED)
        frames = _attempt(task)
        if frames is None and not task.smaller:
            frames = _attempt(task.on_a_smaller_size())
        if frames is None:
            raise ResourceError("There is not enough memory for this loop", "on a smaller size neither")
    except UniUltraError as error:
        return Outcome(task.name, FAILED, type(error).__name__, task.plain(error), seconds=_since(started))
    except Exception as error:  # what a reader quotes may be a patient's name: the place of the fault must do
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"An unexpected {type(error).__name__} in {Path(where.filename).name}, line {where.lineno}."
        return Outcome(task.name, FAILED, type(error).__name__, reason, seconds=_since(started))
    return Outcome(task.name, DONE, frames=frames, seconds=_since(started))


def _since(started: float) -> float:
    return time.perf_counter() - started


def _attempt(task: LoopTask) -> int | None:
    """The number of frames done, or None when memory did not suffice."""
    try:
        return _label(task)
    except (ResourceError, MemoryError):
        return None


def _label(task: LoopTask) -> int:
    started = time.perf_counter()
    before = {"input_state": input_state(task.loop.path), "input_sha256": input_sha256(task.loop.path)}
    cine = read_cine(task.loop.path)
    state, model = _segment(task, cine)
    record = {
        "name": task.name,
        "rest": task.rest,
        **before,
        "subject": task.loop.subject,
        "start": task.start.kind,
        "corrected": task.start.kind == "correction",
        "frames": len(cine),
        "shape_hw": list(cine.shape_hw),
        "spacing_mm": cine.spacing_mm and list(cine.spacing_mm),
        "model": model,
    }
    found, files = _write(task, cine, state)
    write_record(task.folder, {**record, **found, "seconds": round(_since(started), 3)}, files)
    return len(cine)


# Segmenting -------------------------------------------------------------------------------------------------------


def _segment(task: LoopTask, cine: Cine) -> tuple[SessionState, dict[str, Any] | None]:
    """A session's state with results on all frames, kept in its file, and the model that found them.

    What an earlier run left of the loop goes when there is something to take its place.
    """
    from napari_uniultra.segment.session import CineSession
    from napari_uniultra.segment.session_file import load_state, read_about, save_state

    session_file = loop_folder(task.folder, task.name) / SESSION
    if task.start.kind == "correction":  # a person had the last word: nothing is computed
        state = load_state(task.start.path, cine)
        clear_loop(task.folder, task.name)
        save_state(session_file, state, read_about(task.start.path))
        return state, None
    model = _model(task)
    if task.start.kind == "session":
        session = CineSession.restore(task.start.path, cine, model)
    else:
        session = CineSession(cine, model)
        begin(session, task.start, task.names, model)
    session.zoom = task.model.zoom
    for _ in session.propagate(task.model.direction):
        pass
    clear_loop(task.folder, task.name)
    session.save(session_file)
    about = {"name": model.name, "sha256": model.sha256, "image_size": model.image_size, "device": str(model.device)}
    return load_state(session_file, cine), about


_loaded: dict[tuple[Any, ...], Any] = {}
_loading = threading.Lock()


def _model(task: LoopTask) -> Any:
    """The job's model, loaded once per process; of a smaller size only while it is needed."""
    import torch

    from napari_uniultra.model.load import model_at

    wanted = (task.model.name, task.model.device, task.model.image_size, task.model_sha256)
    with _loading:
        if wanted not in _loaded:
            _loaded.clear()
            if _worker_number() is not None:  # a process of its own; the caller's threads are the caller's
                torch.set_num_threads(task.threads)
            model = model_at(task.model.name, _device(task.model.device), task.model.image_size)
            if model.sha256 != task.model_sha256:
                raise ReadError("The model is not the one that the job began with", fix="Run the job again")
            _loaded[wanted] = model
        model = _loaded[wanted]
    if not task.smaller:
        return model
    return model_at(task.model.name, str(model.device), smaller_size(model.image_size))


def smaller_size(image_size: int) -> int:
    """Half an input size, as a multiple of 32 px that networks take."""
    return max(64, image_size // 64 * 32)


def _device(name: str) -> str:
    """One GPU for each worker of this machine, by the worker's number."""
    import torch

    from napari_uniultra.model.device import available_devices

    if name not in ("auto", "cuda") or "cuda" not in available_devices():
        return name
    return f"cuda:{(_worker_number() or 0) % torch.cuda.device_count()}"


def _worker_number() -> int | None:
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:  # in no worker
        return None
    return name if isinstance(name, int) else sum(str(name).encode())


# Writing ----------------------------------------------------------------------------------------------------------


def _write(task: LoopTask, cine: Cine, state: SessionState) -> tuple[dict[str, Any], list[Path]]:
    """Write everything but the record; returns what the record says of it, and the files."""
    folder = loop_folder(task.folder, task.name)
    names = {**state.names, **{key: name for key, name in task.names.items() if key in state.names}}
    labels, rows = _results(state, cine, task.post, names)
    masks = Masks.of_cine(cine, labels, names, state.colours)
    files = [folder / MASKS, folder / MEASUREMENTS, folder / SESSION]
    write_masks_tiff(files[0], labels, cine.spacing_mm, cine.frame_times_s)
    write_measurements_csv(files[1], rows)
    if task.outputs.contact_sheet:
        write_contact_sheet(folder / SHEET, cine, labels, colours=state.colours)
        files.append(folder / SHEET)
    for name in task.outputs.formats:
        if name != "tiff":
            files += write_masks(usual_path(folder, name), masks, name)
    found: dict[str, Any] = {"objects": {str(number): masks.name(number) for number in masks.ids}}
    found["review"] = asdict(review(rows))
    if task.reference is not None:
        found["agreement"] = _write_agreement(folder / AGREEMENT, task, masks)
        files.append(folder / AGREEMENT)
    return found, files


def _results(
    state: SessionState, cine: Cine, post: TidySettings, names: Mapping[int, str]
) -> tuple[np.ndarray, list[Measurement]]:
    """Tidied masks as labels (T, H, W), where the higher id is on top, and their measurements."""
    from napari_uniultra.segment.state import paint
    from napari_uniultra.segment.tidy import put_results, tidied_results

    kind = np.uint8 if max(state.names, default=0) <= np.iinfo(np.uint8).max else np.uint16
    labels = _array((len(cine), *cine.shape_hw), np.dtype(kind))
    state = put_results(state.copy(), tidied_results(state, post, sorted(state.names)))
    rows: list[Measurement] = []
    for frame in state.known_frames():
        step = state.step(frame)
        labels[frame] = paint(step, cine.shape_hw)
        rows += measurement_rows(cine, [step], names)
    return labels, with_area_change(rows)


def _array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros, in a temporary file where they would take much memory."""
    if int(np.prod(shape)) * dtype.itemsize <= _ON_DISK:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="napari-uniultra-") as file:  # the mapping keeps it while it is needed
        return np.memmap(file, dtype, "w+", shape=shape)


def _write_agreement(path: Path, task: LoopTask, masks: Masks) -> dict[str, Any]:
    found = compare(masks, task.reference, task.reference_frames)
    write_table(path, COLUMNS, (entry.cells(task.name) for entry in found))
    distances = [entry.hd95 for entry in found if np.isfinite(entry.hd95)]
    return {
        "frames": len({entry.frame for entry in found}),
        "dice": _mean([entry.dice for entry in found]),
        "hd95": _mean(distances),
        "hd95_missing": len(found) - len(distances),
        "unit": "mm" if masks.spacing_mm is not None else "px",
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
