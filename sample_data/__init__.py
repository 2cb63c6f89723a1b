"""Sample loops with their licences; installed as `napari_uniultra.sample_data`. See README.md beside this file."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def heart_path() -> Path:
    """A real loop: the beating heart in an apical four-chamber view, 30 frames over one cycle, DICOM."""
    return _HERE / "heart_a4c.dcm"


def heart_prompts_path() -> Path:
    """Boxes around the left ventricle on three frames of the real loop, as `uniultra segment --prompts` takes it."""
    return _HERE / "heart_a4c.prompts.json"


def simulated_path() -> Path:
    """A simulated loop in which an artery pulses beside a muscle, 30 frames, TIFF."""
    return _HERE / "simulated.tif"


def simulated_masks_path() -> Path:
    """The exact masks of the simulated loop: 1 is the muscle, 2 the artery."""
    return _HERE / "simulated_masks.tif"
