"""How well a model segments and tracks, beside what an ellipse drawn into the same box would score.

``python -m napari_uniultra.training.evaluate MODEL DATA [OUTPUT.json [INPUT_SIZE]]``, on the ``val`` part of DATA's
split. MODEL is a name, a checkpoint, or the folder of a training run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image

from napari_uniultra.core.prompts import ellipse_in_box
from napari_uniultra.core.types import Cine, Prompt
from napari_uniultra.errors import UniUltraError
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import load_into
from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.preprocess import masks_at
from napari_uniultra.model.zoo import Model, load_model
from napari_uniultra.segment.predictor import Predictor
from napari_uniultra.segment.session import CineSession
from napari_uniultra.training.data.real import Annotated, load_loop, load_still, read_split, structures
from napari_uniultra.training.trainer import CHECKPOINT, load_training_checkpoint

JITTER = 20 / 1024  # box sides move outwards by up to 20 px at 1024
_VIDEO_STRIDE = 8  # frames: at 61 a second, every one of them differs little from the last
PROMPTS = ("box", "box, tokens only", "1 click")


@dataclass(frozen=True)
class Score:
    """One structure on one frame.

    Attributes
    ----------
    group, case, prompt : str
    dice : float
    iou, predicted_iou : float
    ellipse : float
        Dice of the ellipse inscribed in the box; NaN for a tracked frame.
    thickness_error_mm : float
        Of a layer that lies across the image; NaN for anything else.
    """

    group: str
    case: str
    prompt: str
    dice: float
    iou: float
    predicted_iou: float
    ellipse: float
    thickness_error_mm: float = float("nan")


def open_model(path: str, image_size: int | None = None) -> Model:
    """A model by name or path; of a training run's folder, its averaged weights, at any input size."""
    folder = Path(path)
    if not (folder / CHECKPOINT).exists():
        return load_model(path, "cpu")
    state = load_training_checkpoint(folder / CHECKPOINT)
    config = ModelConfig.from_dict(state["model_config"]).with_(**({"image_size": image_size} if image_size else {}))
    network = build_network(config)
    load_into(network, state["average"])
    return Model(network, config, torch.device("cpu"), folder.name, "", {})


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Of boolean masks; two empty ones agree, 1."""
    total = int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((predicted & truth).sum()) / total


def iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Of boolean masks; two empty ones agree, 1."""
    union = int((predicted | truth).sum())
    return 1.0 if union == 0 else int((predicted & truth).sum()) / union


def jittered_box(mask: np.ndarray, rng: Generator, jitter: float = JITTER) -> tuple[float, float, float, float]:
    """The box around a mask, (x0, y0, x1, y1) in pixels, each side moved outwards by 0 to ``jitter`` of the frame."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    moves = rng.uniform(0, jitter, 4) * (width, height, width, height)
    return (
        float(max(columns.min() - moves[0], 0)),
        float(max(rows.min() - moves[1], 0)),
        float(min(columns.max() + 1 + moves[2], width)),
        float(min(rows.max() + 1 + moves[3], height)),
    )


def thickness(mask: np.ndarray) -> float:
    """Median height in pixels of a layer (H, W) bool over the middle half of the image; 0 without any."""
    width = mask.shape[1]
    heights = mask[:, width // 4 : width - width // 4].sum(axis=0)
    return float(np.median(heights))


def click_inside(mask: np.ndarray, rng: Generator) -> tuple[float, float]:
    """A position (x, y) in the inner half of a mask, as a person clicks."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= depth.max() / 2)
    chosen = rng.integers(len(rows))
    return float(columns[chosen] + 0.5), float(rows[chosen] + 0.5)


def score_stills(
    model: Model, cases: Iterable[tuple[str, Annotated]], prompts: Sequence[str] = PROMPTS, seed: int = 0
) -> Iterator[Score]:
    """Every structure of every frame, with each kind of prompt; the boxes and clicks depend on ``seed`` alone."""
    plain = replace(model, config=model.config.with_(box_prior=False))
    predictor, without_prior = Predictor(model), Predictor(plain)
    for number, (group, case) in enumerate(cases):
        embedding = predictor.embed(case.image)
        features = predictor.unconditioned(embedding)
        shape = case.image.shape[:2]
        for part, truth in enumerate(case.masks):
            rng = np.random.default_rng([seed, number, part])
            box, click = jittered_box(truth, rng), click_inside(truth, rng)
            ellipse = dice(ellipse_in_box(box, shape), truth)
            for kind in prompts:
                prompt = Prompt(points=(click,), labels=(1,)) if kind == "1 click" else Prompt(box=box)
                asked = without_prior if kind == "box, tokens only" else predictor
                answer = asked.predict(embedding, features, prompt, shape)
                mask = masks_at(answer.logits, shape)[0].numpy() > 0
                yield Score(
                    group, case.name, kind, dice(mask, truth), iou(mask, truth), float(answer.predicted_iou[0]), ellipse
                )


def score_tracking(model: Model, loop: Loop, seed: int = 0) -> Iterator[Score]:
    """Track one structure from a box on the first frame that has a truth; the frames after it are scored."""
    first = min(loop.truths)
    session = CineSession(Cine(loop.frames), model)
    session.add_box(1, first, jittered_box(loop.truths[first], np.random.default_rng([seed, 0])))
    for step in session.propagate("forward"):
        if step.frame in loop.truths and step.frame != first:
            mask, truth = step.masks[1], loop.truths[step.frame]
            yield Score(
                loop.group,
                f"{loop.case}/{step.frame}",
                "tracked",
                dice(mask, truth),
                iou(mask, truth),
                step.predicted_iou[1],
                float("nan"),
                abs(thickness(mask) - thickness(truth)) * loop.spacing_mm,
            )


def validation_stills(folder: str | Path) -> Iterator[tuple[str, Annotated]]:
    """The split's stills, and every frame of its loops that are stored as frames, for use as stills."""
    for case in read_split(folder, "val"):
        if case.startswith("still/"):
            yield case.split("/")[1], load_still(folder, case)
        elif (Path(folder) / case / "frames").is_dir():
            yield from (("carotid", frame) for frame in load_loop(folder, case))


@dataclass(frozen=True)
class Loop:
    """A loop to track one structure through.

    Attributes
    ----------
    group, case : str
    frames : (T, H, W) uint8
    truths : dict of int to (H, W) bool
        By frame.
    spacing_mm : float
        Of the rows; NaN where it is not known.
    """

    group: str
    case: str
    frames: np.ndarray
    truths: dict[int, np.ndarray]
    spacing_mm: float


def validation_loops(folder: str | Path, every: int = 1) -> Iterator[Loop]:
    """The split's loops; of videos every ``every``-th frame, and those with a truth."""
    for case in read_split(folder, "val"):
        path = Path(folder) / case
        if (path / "frames").is_dir():
            frames = load_loop(folder, case)
            truths = {t: frame.masks[0] for t, frame in enumerate(frames) if len(frame.masks)}
            yield Loop("carotid", case, np.stack([frame.image for frame in frames]), truths, float("nan"))
        elif case.startswith("cine/") and (path / "masks").is_dir():
            yield _video_loop(path, case, every)


def _video_loop(path: Path, case: str, every: int) -> Loop:
    files = sorted((path / "masks").glob("*.png"))
    truths = {int(file.stem): structures(np.asarray(Image.open(file).convert("L")), False)[0] for file in files}
    video = _read_video(path / "video.mp4")
    kept = [t for t in range(min(truths), max(truths) + 1) if t in truths or t % every == 0]
    spacing = json.loads((path / "meta.json").read_text(encoding="utf-8"))["spacing_mm"][0]
    return Loop("muscle", case, video[kept], {kept.index(t): mask for t, mask in truths.items()}, spacing)


def _read_video(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def table(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Means by group and prompt."""
    rows = []
    for key in dict.fromkeys((score.group, score.prompt) for score in scores):
        own = [score for score in scores if (score.group, score.prompt) == key]
        rows.append(
            {
                "group": key[0],
                "prompt": key[1],
                "structures": len(own),
                "dice": round(float(np.mean([s.dice for s in own])), 4),
                "ellipse": round(float(np.mean([s.ellipse for s in own])), 4),
                "iou_error": round(float(np.mean([abs(s.iou - s.predicted_iou) for s in own])), 4),
                "thickness_error_mm": round(float(np.mean([s.thickness_error_mm for s in own])), 2),
            }
        )
    return rows


def main(arguments: list[str]) -> int:
    """0, or 2 for a usage error or a model or folder that cannot be used."""
    if len(arguments) not in (2, 3, 4):
        sys.stderr.write("usage: python -m napari_uniultra.training.evaluate MODEL DATA [OUTPUT.json [INPUT_SIZE]]\n")
        return 2
    try:
        model = open_model(arguments[0], int(arguments[3]) if len(arguments) > 3 else None)
        scores = list(score_stills(model, validation_stills(arguments[1])))
        _show(scores)
        for loop in validation_loops(arguments[1], every=_VIDEO_STRIDE):
            tracked = list(score_tracking(model, loop))
            _show(tracked)
            scores += tracked
    except UniUltraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if len(arguments) > 2:
        Path(arguments[2]).write_text(
            json.dumps({"table": table(scores), "scores": [asdict(s) for s in scores]}, indent=1)
        )
    return 0


def _show(scores: Sequence[Score]) -> None:
    for row in table(scores):
        sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
