"""From what a job says of a loop's start to a session that can be propagated. Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_uniultra.batch.loops import Loop
from napari_uniultra.batch.prompt_table import Row, prompts_of_rows, read_prompt_rows
from napari_uniultra.batch.results import correction_file
from napari_uniultra.batch.settings import StartSettings
from napari_uniultra.batch.task import Start
from napari_uniultra.core.types import Cine, Prompt, default_name
from napari_uniultra.errors import PromptError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.masks import read_masks
from napari_uniultra.io.writers import ObjectPrompts, read_prompts

MASK_SUFFIXES = (".tif", ".tiff", ".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".png", ".dcm")
_SESSIONS = (".npz", ".uniultra")  # as a batch or an autosave writes them, and as the viewer saves them


class Starts:
    """Finds where each loop starts from, among what the table and the settings name.

    Raises
    ------
    PromptError
        When the prompts named are not there, or the CSV file of all loops cannot be read.
    """

    def __init__(self, settings: StartSettings, results: Path) -> None:
        self._settings, self._results = settings, results
        self._place = Path(settings.prompts) if settings.prompts else None
        self._rows: Mapping[str, list[Row]] = {}
        if self._place is not None and not self._place.exists():
            raise PromptError(f"The prompts {self._place} do not exist", fix="Check start.prompts")
        if self._place is not None and self._place.suffix.lower() == ".csv":
            self._rows = read_prompt_rows(self._place)

    def of(self, loop: Loop) -> Start:
        """The start of a loop; one of kind "" where there is none.

        Raises
        ------
        PromptError
            When its own CSV file cannot be read.
        """
        frame = self._settings.frame if loop.frame is None else loop.frame
        corrected = correction_file(self._results, loop.name)
        if corrected.is_file():
            return Start("correction", corrected)
        for kind in ("session", "prompts", "mask"):
            if kind in loop.given:
                return _of_file(loop.given[kind], loop.names, frame, kind)
        return self._common(loop, frame) or self._otherwise(frame)

    def _common(self, loop: Loop, frame: int) -> Start | None:
        place = self._place
        if place is None:
            return None
        if place.is_dir():
            return _in_folder(place, loop.names, frame)
        if self._rows:
            rows = _rows_for(self._rows, (*loop.names, loop.path.name))
            return Start("rows", rows=tuple(rows)) if rows else None
        return _of_file(place, loop.names, frame, "prompts")

    def _otherwise(self, frame: int) -> Start:
        settings = self._settings
        if settings.otherwise == "template":
            template = Path(settings.template), Path(settings.template_mask), settings.template_frame
            return Start("template", frame=frame, template=template)
        return Start("no_prompt", frame=frame) if settings.otherwise == "no_prompt" else Start()


def file_for(folder: Path, names: Iterable[str], suffixes: tuple[str, ...]) -> Path | None:
    """The file in ``folder`` that belongs to the loop that has one of these names."""
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in suffixes)
    return next((path for path in candidates if path.exists()), None)


def _rows_for(rows: Mapping[str, list[Row]], names: Iterable[str]) -> list[Row]:
    return next((rows[name] for name in names if name in rows), [])


def _in_folder(folder: Path, names: tuple[str, ...], frame: int) -> Start | None:
    path = file_for(folder, names, (*_SESSIONS, ".json", ".csv", *MASK_SUFFIXES))
    return None if path is None else _of_file(path, names, frame, "mask")


def _of_file(path: Path, names: tuple[str, ...], frame: int, kind: str) -> Start:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return Start("rows", rows=tuple(_rows_for(read_prompt_rows(path), (*names, ""))))
    if suffix in _SESSIONS:
        kind = "session"
    elif suffix == ".json":
        kind = "prompts" if kind != "mask" or _is_prompts(path) else "mask"
    return Start(kind, path, frame=frame)


def _is_prompts(path: Path) -> bool:
    """A JSON file of prompts rather than of COCO masks."""
    with path.open("rb") as file:
        return b'"annotations"' not in file.read(1 << 16)


def begin(session: Any, start: Start, names: Mapping[int, str], model: Any) -> None:
    """Put a start's prompts into a session.

    Raises
    ------
    PromptError
        When there is none, or it does not fit the loop.
    """
    for entry in _objects(session, start, model):
        name = names.get(entry.id) or entry.name
        session.name_object(entry.id, name)
        for frame, prompt in sorted(entry.frames.items()):
            session.set_prompt(entry.id, frame, prompt)


def _objects(session: Any, start: Start, model: Any) -> list[ObjectPrompts]:
    cine = session.cine
    if start.kind == "prompts":
        return read_prompts(start.path, cine.shape_hw)
    if start.kind == "rows" and start.rows:
        return prompts_of_rows(start.rows, cine.shape_hw)
    if start.kind == "mask":
        return _of_masks(start.path, cine, start.frame)
    if start.kind == "no_prompt":
        frame = frame_number(start.frame, cine)
        return _as_prompts({1: unprompted_mask(cine, frame, model)}, {}, frame)
    if start.kind == "template":
        return _of_template(start, cine, model)
    raise PromptError("There is no prompt for this loop", fix="Give it one, or set start.otherwise")


def frame_number(frame: int, cine: Cine) -> int:
    """A frame's number, where negative ones count from the end.

    Raises
    ------
    PromptError
        When the loop has no such frame.
    """
    number = frame + len(cine) if frame < 0 else frame
    cine.frame(number)
    return number


def _of_masks(path: Path, cine: Cine, frame: int) -> list[ObjectPrompts]:
    """Prompts from a file of masks: of one frame, or of the whole loop, where each frame with something counts."""
    masks = read_masks(path, len(cine))
    if masks.shape_hw != tuple(cine.shape_hw) or len(masks) not in (1, len(cine)):
        shapes = f"they are {masks.labels.shape}, the loop {(len(cine), *cine.shape_hw)}"
        raise PromptError(f"The masks of {path.name} do not fit the loop", shapes)
    if len(masks) == 1:
        number = frame_number(frame, cine)
        return _as_prompts(_by_object(masks.labels[0]), masks.names, number)
    found: dict[int, dict[int, Prompt]] = {}
    for number, labels in enumerate(masks.labels):
        for object_id, mask in _by_object(labels).items():
            found.setdefault(object_id, {})[number] = Prompt(mask=mask)
    if not found:
        raise PromptError(f"The masks of {path.name} are empty")
    return [ObjectPrompts(object_id, masks.name(object_id), frames) for object_id, frames in sorted(found.items())]


def _by_object(labels: np.ndarray) -> dict[int, np.ndarray]:
    return {int(value): labels == value for value in np.unique(labels) if value}


def _as_prompts(masks: Mapping[int, np.ndarray], names: Mapping[int, str], frame: int) -> list[ObjectPrompts]:
    found = {object_id: mask for object_id, mask in masks.items() if mask.any()}
    if not found:
        raise PromptError(f"Nothing was found on frame {frame}", fix="Give this loop a prompt, or another frame")
    return [
        ObjectPrompts(object_id, names.get(object_id) or default_name(object_id), {frame: Prompt(mask=mask)})
        for object_id, mask in found.items()
    ]


def unprompted_mask(cine: Cine, frame: int, model: Any) -> np.ndarray:
    """What the model finds on a frame when nothing is asked: (H, W) bool."""
    from napari_uniultra.model.preprocess import masks_at
    from napari_uniultra.segment.predictor import Predictor

    predictor = Predictor(model)
    embedding = predictor.embed(cine.frame(frame))
    answer = predictor.track(embedding, predictor.unconditioned(embedding))
    return (masks_at(answer.logits, cine.shape_hw)[0] > 0).cpu().numpy()


def _of_template(start: Start, cine: Cine, model: Any) -> list[ObjectPrompts]:
    """A template's masks, tracked from its frame to this loop's as if that were the next frame."""
    from napari_uniultra.segment.session import CineSession

    loop_path, mask_path, template_frame = start.template
    template = read_cine(loop_path)
    masks = read_masks(mask_path, len(template))
    shown = frame_number(template_frame, template)
    if masks.shape_hw != tuple(template.shape_hw) or len(masks) not in (1, len(template)):
        raise PromptError("The template's mask does not fit the template", f"it is {masks.labels.shape}")
    labels = masks.labels[0 if len(masks) == 1 else shown]
    number = frame_number(start.frame, cine)
    pair = [_as_grey(template.frame(shown), cine.shape_hw), _as_grey(cine.frame(number), cine.shape_hw)]
    session = CineSession(Cine(np.stack(pair)), model)
    height, width = cine.shape_hw
    fitted = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    for object_id, mask in _by_object(fitted).items():
        session.add_mask(object_id, 0, mask)
    for _ in session.propagate("forward"):
        pass
    return _as_prompts(session.step(1).masks, masks.names, number)


def _as_grey(frame: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """A frame as grey of another size: (H, W) uint8. The model stretches every frame to a square as well."""
    height, width = shape_hw
    return np.asarray(Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BILINEAR))
