"""What a run trains on and how a person's prompts are drawn from the truth."""

from __future__ import annotations

from dataclasses import dataclass

from napari_uniultra.core.settings import ConfigError, setting


@dataclass(frozen=True)
class DataSettings:
    """Real cases from manifests, simulated ones, and how they are mixed into batches."""

    manifests: tuple[str, ...] = setting(
        (), help="Manifests (CSV or JSON files, or annotated folders with a splits.json)."
    )
    simulated_share: float = setting(0.0, low=0, high=1, help="Share of samples that are simulated.")
    simulate_on: str = setting(
        "workers",
        choices=("workers", "device"),
        help="Where samples are simulated: in the data processes, or on the training device, each anew.",
    )
    simulated_pool: str | None = setting(None, help="Folder that keeps simulated samples, so that each is made once.")
    simulated_stills: int = setting(6000, low=1, help="Number of different simulated stills.")
    simulated_clips: int = setting(800, low=1, help="Number of different simulated clips.")
    simulated_ahead: int = setting(
        300, low=1, help="How many of them the first step may draw from; the number then grows until half of the steps."
    )
    image_sizes: tuple[int, ...] = setting(
        (), low=64, help="Input sizes in pixels to train at, drawn evenly; empty for the model's own."
    )
    batch: int = setting(8, low=1, help="Frames a step and process at the model's input size.")
    clip_share: float = setting(0.0, low=0, high=1, help="Share of steps on clips through the memory.")
    clip_frames: tuple[int, int] = setting((3, 6), low=2, help="Shortest and longest clip, in frames.")
    augmentation: float = setting(1.0, low=0, high=2, help="Strength of the augmentation; 0 is none.")
    close_views: float = setting(
        0.0, low=0, high=1, help="Share of samples seen closely, as zoomed tracking sees them."
    )
    cache_mb: int = setting(512, low=1, help="Memory for decoded frames, in MB, for each data process.")
    workers: int = setting(1, low=0, help="Processes that prepare data, for each training process.")

    def __post_init__(self) -> None:
        shortest, longest = self.clip_frames
        if shortest > longest:
            raise ConfigError(
                f"data.clip_frames is [{shortest}, {longest}]",
                "the shortest clip comes first",
                f"Write [{longest}, {shortest}]",
            )
        uneven = [str(size) for size in self.image_sizes if size % 32]
        if uneven:
            raise ConfigError(f"data.image_sizes has {', '.join(uneven)}", fix="Choose multiples of 32")


@dataclass(frozen=True)
class PromptSettings:
    """Weights of the kinds of prompts that training draws, and how exact they are."""

    jitter: float = setting(20 / 1024, low=0, high=0.2, help="How far a box's side moves at most, of the image's side.")
    outwards: float = setting(
        0.7,
        low=0,
        high=1,
        help="Share of boxes whose sides all move outwards, as the paper has it; others: either way.",
    )
    box: float = setting(1.0, low=0, help="Weight of boxes.")
    one_point: float = setting(0.4, low=0, help="Weight of one click inside.")
    three_points: float = setting(0.1, low=0, help="Weight of three clicks inside.")
    box_and_point: float = setting(0.15, low=0, help="Weight of a box with a click.")
    mask: float = setting(0.1, low=0, help="Weight of a rough mask.")
    moved_mask: float = setting(0.0, low=0, help="Weight of a mask that lies where the structure was a frame before.")
    none: float = setting(0.0, low=0, help="Weight of no prompt at all.")
    corrections: float = setting(0.2, low=0, high=1, help="Share of predictions that are corrected by a click.")
    conditioning_frames: int = setting(
        1, low=1, high=8, help="Frames of a clip that are prompted at most; their number is drawn evenly."
    )
    clip_corrections: float = setting(0.15, low=0, high=1, help="Share of a clip's later frames that are corrected.")
    followed: float = setting(
        0.0,
        low=0,
        high=1,
        help="Share of carried masks that follow the structure, with a box, as the motion prior gives them.",
    )
    prior_start: float = setting(1.0, low=0, high=1, help="Share of boxes with the box prior, at first.")
    prior_end: float = setting(0.5, low=0, high=1, help="Share of boxes with the box prior, once it has faded.")
    prior_fade: float = setting(0.6, low=0, high=1, help="Share of the run during which it fades.")
