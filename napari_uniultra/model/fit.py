"""Whether weights fit a network, and putting them into it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from napari_uniultra.core.words import some_of
from napari_uniultra.errors import CheckpointError


def load_into(network: nn.Module, state: Mapping[str, Tensor], *, allow_missing_adapters: bool = False) -> None:
    """Copy weights into a network, all of them or none.

    Parameters
    ----------
    network : Module
    state : mapping of str to Tensor
    allow_missing_adapters : bool
        Leave the network's adapters as they are where ``state`` has none: SAM2's weights into a network with adapters.

    Raises
    ------
    CheckpointError
        Naming the weights that are missing, unexpected or of another shape. The network is unchanged then.
    """
    own = network.state_dict()
    missing = {name for name in own if name not in state and allow_missing_adapters and _is_adapter(name)}
    check_fit({name: tensor for name, tensor in own.items() if name not in missing}, state)
    network.load_state_dict(dict(state), strict=False)


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of the weights that a network has and that it is to get.

    Raises
    ------
    CheckpointError
        Naming the weights that are missing, unexpected or of another shape.
    """
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    faults = [f"{len(names)} {kind} ({some_of(names)})" for kind, names in groups.items() if names]
    if faults:
        raise CheckpointError(
            "The weights do not fit the network", "; ".join(faults), "Use the configuration that they were trained with"
        )


def _is_adapter(name: str) -> bool:
    return name.startswith("image_encoder.trunk.patch_mixer.") or ".adapter." in name
