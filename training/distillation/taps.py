"""What an image encoder computes on its way, by name: each stage's parts (Eq. 4) and the neck's maps.

The names, with stages and levels counted from fine to coarse, from 1:

==========  ===========================================================================================
``D1_l``    the last block of stage l with its adapter, which is what the stage puts out
``D2_l``    that block without its adapter
``D3_l``    that adapter alone, before it is scaled
``fpn_l``   the neck's map at level l, before sam2 drops the coarsest
==========  ===========================================================================================

Eq. 4 (UniUltra, arXiv 2511.15771) matches D1, D2 and D3 at l = 1, 2, 3; the authors' released code the neck's maps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from napari_uniultra.errors import CheckpointError

if TYPE_CHECKING:  # the names of features are read without torch
    from torch import Tensor, nn

STAGES = (1, 2, 3, 4)
Read = Callable[[Any, Any], Any]
TERMS = {"integration": "D1", "hiera": "D2", "adapter": "D3"}


def feature_names(terms: Collection[str], stages: Collection[int], fpn_levels: Collection[int]) -> tuple[str, ...]:
    """The names of features: every term of ``TERMS`` at every stage, then the neck's levels."""
    parts = [f"{TERMS[term]}_{stage}" for term in TERMS if term in terms for stage in sorted(stages)]
    return (*parts, *(f"fpn_{level}" for level in sorted(fpn_levels)))


def encode(encoder: nn.Module, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """Run an image encoder and keep the features of these names.

    Parameters
    ----------
    encoder : ImageEncoder
        Of a network that `build_network` made.
    images : (B, 3, S, S) float32, normalised
    names : collection of str
        As in the table above.

    Returns
    -------
    dict of str to Tensor
        (B, D, h, w) each; stage 1 and level 1 are at S / 4.

    Raises
    ------
    CheckpointError
        When an adapter's output is asked of an encoder without adapters.
    """
    caught: dict[str, Any] = {}
    points = list(_points(encoder, names))
    with ExitStack() as hooks:
        for name, module, read in points:
            hooks.callback(module.register_forward_hook(_keeper(caught, name, read)).remove)
        encoder(images)
    return {name: _assembled(name, caught) for name in names}


def feature_width(encoder: nn.Module, name: str) -> int:
    """The number of channels of a feature."""
    kind, level = name.split("_")
    return encoder.neck.d_model if kind == "fpn" else _stage_end(encoder, level).dim_out


def _stage_end(encoder: nn.Module, stage: str) -> nn.Module:
    return encoder.trunk.blocks[encoder.trunk.stage_ends[int(stage) - 1]]


def _points(encoder: nn.Module, names: Collection[str]) -> Iterator[tuple[str, nn.Module, Read]]:
    """Where to listen: a key, a module and what of its inputs and outputs to keep.

    Blocks are not called as modules, but what they are made of is.
    """
    yield "trunk", encoder.trunk, lambda inputs, outputs: outputs
    yield "neck", encoder.neck, lambda inputs, outputs: outputs[0]
    for name in names:
        kind, level = name.split("_")
        if kind == "D2":
            block = _stage_end(encoder, level)
            yield f"attended_{level}", block.norm2, lambda inputs, outputs: inputs[0]
            yield f"mlp_{level}", block.mlp, lambda inputs, outputs: outputs
        elif kind == "D3":
            adapter = getattr(_stage_end(encoder, level), "adapter", None)
            if adapter is None:
                raise CheckpointError(
                    "The image encoder has no adapters to distil",
                    "it is a plain SAM2 encoder",
                    "Set match.adapter to false, or choose a teacher and a student with adapters",
                )
            yield f"adapter_{level}", adapter, lambda inputs, outputs: outputs


def _keeper(caught: dict[str, Any], name: str, read: Read) -> Callable[..., None]:
    def keep(_module: nn.Module, inputs: Any, outputs: Any) -> None:
        caught[name] = read(inputs, outputs)

    return keep


def _assembled(name: str, caught: Mapping[str, Any]) -> Tensor:
    kind, level = name.split("_")
    if kind == "fpn":
        return caught["neck"][int(level) - 1]
    if kind == "D1":
        return caught["trunk"][int(level) - 1]
    if kind == "D2":
        return (caught[f"attended_{level}"] + caught[f"mlp_{level}"]).permute(0, 3, 1, 2)
    return caught[f"adapter_{level}"].permute(0, 3, 1, 2)
