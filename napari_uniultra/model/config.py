"""The zoo's architectures as plain data: UniUltra-L and -mini, and the eight official SAM2 sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from napari_uniultra.core.settings import read_settings
from napari_uniultra.errors import CheckpointError, ConfigError

EdgeOperator = Literal["sobel", "laplace", "canny"]
Curve = tuple[tuple[float, float], ...]  # points (x, y) with rising x
EdgeDirection = Literal["horizontal", "vertical", "diagonal_right", "diagonal_left"]


def _check_choice(what: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise CheckpointError(f"There is no {what} {value!r}", fix=f"Choose one of {', '.join(map(str, choices))}")


def _check_range(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise CheckpointError(f"A {what} of {value} cannot be used", fix=f"Choose from {low:g} to {high:g}")


def _check_curve(curve: Curve) -> None:
    if any(len(point) != 2 or not all(0 <= value <= 1 for value in point) for point in curve):
        raise CheckpointError("A curve of the predicted IoU is damaged", "its points are not pairs from 0 to 1")
    if list(curve) != sorted(curve):
        raise CheckpointError("A curve of the predicted IoU is damaged", "its points do not rise")


@dataclass(frozen=True)
class AdapterConfig:
    """The context-edge hybrid adapter (CH-Adapter; UniUltra, arXiv 2511.15771, Eqs. 1-3).

    Parameters
    ----------
    operator : {"sobel", "laplace", "canny"}
        Edge operator (Table VIII).
    directions : tuple of str
        Sobel directions (Table VI); empty leaves the context branch alone. Other operators ignore it.
    reduction : {"magnitude", "sum"}
        How the directions' responses are joined: sqrt of the sum of squares, or Eq. 2's literal sum, which collapses
        to a single 3 x 3 kernel.
    scale : float
        Weight of the adapter's output beside the block's MLP.
    hidden_ratio : float
        Hidden width of the context branch over the block's width.
    edge_channels : int
        Channels that the patch mixer reduces the patch embedding to.
    layout : {"corrected", "released"}
        "released" also stores a dense (edge_channels, edge_channels, 3, 3) kernel per direction and adapter, as the
        authors' code does, so that the paper's parameter counts can be reproduced; it computes the same. "corrected"
        holds depthwise kernels as constants only.
    """

    operator: EdgeOperator = "sobel"
    directions: tuple[EdgeDirection, ...] = ("horizontal", "vertical", "diagonal_right", "diagonal_left")
    reduction: Literal["magnitude", "sum"] = "magnitude"
    scale: float = 0.5
    hidden_ratio: float = 0.25
    edge_channels: int = 4
    layout: Literal["corrected", "released"] = "corrected"

    def __post_init__(self) -> None:
        _check_choice("edge operator", self.operator, get_args(EdgeOperator))
        for direction in self.directions:
            _check_choice("edge direction", direction, get_args(EdgeDirection))
        _check_choice("reduction", self.reduction, ("magnitude", "sum"))
        _check_choice("layout", self.layout, ("corrected", "released"))
        _check_range("weight of adapters", self.scale, 0, 100)
        _check_range("hidden ratio", self.hidden_ratio, 1 / 64, 4)
        _check_range("number of edge channels", self.edge_channels, 1, 64)


@dataclass(frozen=True)
class MemoryConfig:
    """The memory attention's size; the defaults are SAM2's.

    Parameters
    ----------
    layers : int
    feedforward : int
        Hidden width of each layer's MLP.
    pool : int
        What is remembered of a frame is averaged over ``pool`` x ``pool`` places.
    """

    layers: int = 4
    feedforward: int = 2048
    pool: int = 1

    def __post_init__(self) -> None:
        _check_range("number of memory layers", self.layers, 1, 16)
        _check_range("width of the memory's MLP", self.feedforward, 8, 8192)
        _check_choice("pooling of memories", self.pool, (1, 2, 4))


@dataclass(frozen=True)
class ModelConfig:
    """A SAM2 network, with or without CH-Adapters in its image encoder.

    Parameters
    ----------
    architecture : str
        The name of the architecture, a key of `ARCHITECTURES`.
    image_size : int
        Side of the square input in pixels; any multiple of 32.
    embed_dim, num_heads, stages, global_att_blocks, window_spec, window_pos_embed_bkg_spatial_size
        The Hiera trunk, as in the official SAM2 configurations.
    version : {"2.0", "2.1"}
        SAM2's layout. 2.1 adds an embedding for absent objects and a learnt temporal code of object pointers.
    adapter : AdapterConfig, optional
        None for plain SAM2.
    box_prior : bool
        Give a box also as the filled ellipse inscribed in it, through the mask prompt. For models trained that way;
        off for SAM2 weights.
    mask_prior : bool
        Give a tracked object's mask on the frame before through the mask prompt, beside the memory. As above.
    motion_prior : bool
        With ``mask_prior``: look for a tracked object by the image, and give it there as box and mask. As above.
    close_views : bool
        Look closely at what is boxed or clicked, and track small structures closely unless told otherwise. For models
        trained on close views.
    solid : bool
        Fill small holes in masks and drop small pieces, unless they were clicked. For models of solid structures.
    smooth : float
        Standard deviation of the Gaussian that smooths mask logits before they become masks, in pixels of the logits;
        0 leaves outlines as they are.
    rotary_grid : int, optional
        Side of the feature map that the memory attention's rotary positions are spread over, whatever the input's
        size, so that what was learnt at one size holds at another. None counts places, as SAM2 does.
    memory : MemoryConfig
    prompted_iou, tracked_iou : tuple of (float, float)
        Curves from the network's own estimate of a mask's IoU to the IoU to expect, on frames with a prompt and on
        tracked ones; empty to take the estimate as it is.
    """

    architecture: str
    image_size: int = 1024
    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (1, 2, 7, 2)
    global_att_blocks: tuple[int, ...] = (5, 7, 9)
    window_spec: tuple[int, ...] = (8, 4, 14, 7)
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7)
    version: Literal["2.0", "2.1"] = "2.1"
    adapter: AdapterConfig | None = None
    box_prior: bool = False
    mask_prior: bool = False
    motion_prior: bool = False
    close_views: bool = False
    solid: bool = False
    smooth: float = 0.0
    rotary_grid: int | None = None
    memory: MemoryConfig = MemoryConfig()
    prompted_iou: Curve = ()
    tracked_iou: Curve = ()

    def __post_init__(self) -> None:
        if self.image_size % 32 or not 64 <= self.image_size <= 4096:
            raise CheckpointError(
                f"An input size of {self.image_size} px cannot be used", fix="Choose a multiple of 32 from 64 to 4096"
            )
        # A configuration may come from a file: it must not be able to ask for a network that fills the memory.
        _check_choice("SAM2 version", self.version, ("2.0", "2.1"))
        _check_range("width", self.embed_dim, 8, 512)
        _check_range("number of stages", len(self.stages), 4, 4)
        _check_range("number of window sizes", len(self.window_spec), 4, 4)
        for number in (*self.stages, *self.window_spec, *self.window_pos_embed_bkg_spatial_size):
            _check_range("stage's depth or window", number, 1, 64)
        _check_range("number of heads", self.num_heads, 1, self.embed_dim)
        _check_range("smoothing", self.smooth, 0, 16)
        if self.rotary_grid is not None:
            _check_range("rotary grid", self.rotary_grid, 1, 256)
        for curve in (self.prompted_iou, self.tracked_iou):
            _check_curve(curve)
        if self.image_size // 16 % self.memory.pool:
            raise CheckpointError(
                f"Memories of a {self.image_size} px input cannot be pooled {self.memory.pool} x {self.memory.pool}",
                fix=f"Choose an input size that is a multiple of {16 * self.memory.pool}",
            )

    @property
    def trunk_channels(self) -> tuple[int, ...]:
        """Width of each stage, from coarse to fine, as the FPN neck takes them."""
        return tuple(self.embed_dim * 2**stage for stage in reversed(range(len(self.stages))))

    @property
    def least_parameters(self) -> int:
        """How many the network has at least: those of its trunk's attention and MLPs."""
        widths = reversed(self.trunk_channels)
        return sum(10 * depth * width**2 for depth, width in zip(self.stages, widths, strict=True))

    def with_(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Read what `to_dict` wrote.

        Raises
        ------
        CheckpointError
            For unknown or missing fields or values of the wrong kind.
        """
        try:
            return read_settings(cls, data)
        except (ConfigError, TypeError) as error:
            raise CheckpointError("The model configuration cannot be understood", str(error)) from error


LIGHT_MEMORY = MemoryConfig(layers=2, feedforward=512, pool=2)

_TINY = ModelConfig("sam2-tiny")
_LARGE = ModelConfig(
    "sam2-large",
    embed_dim=144,
    num_heads=2,
    stages=(2, 6, 36, 4),
    global_att_blocks=(23, 33, 43),
    window_spec=(8, 4, 16, 8),
)

ARCHITECTURES: dict[str, ModelConfig] = {
    config.architecture: config
    for config in (
        _LARGE.with_(architecture="uniultra-l", adapter=AdapterConfig()),
        _TINY.with_(architecture="uniultra-mini", embed_dim=16, image_size=512, adapter=AdapterConfig()),
        *(
            config.with_(architecture=f"sam{version if version == '2.1' else '2'}-{size}", version=version)
            for version in ("2.0", "2.1")
            for size, config in (
                ("tiny", _TINY),
                ("small", _TINY.with_(stages=(1, 2, 11, 2), global_att_blocks=(7, 10, 13))),
                (
                    "base-plus",
                    _TINY.with_(
                        embed_dim=112,
                        num_heads=2,
                        stages=(2, 3, 16, 3),
                        global_att_blocks=(12, 16, 20),
                        window_pos_embed_bkg_spatial_size=(14, 14),
                    ),
                ),
                ("large", _LARGE),
            )
        ),
    )
}


def architecture(name: str, **changes: Any) -> ModelConfig:
    """The configuration of a named architecture, with changes.

    Raises
    ------
    CheckpointError
        For an unknown name.
    """
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"There is no architecture called {name!r}", fix=f"Choose one of {known}")
    return ARCHITECTURES[name].with_(**changes)
