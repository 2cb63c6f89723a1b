"""Masks as NIfTI: columns, rows, one slice, frames."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel
import numpy as np

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.masks import Masks


def write_nifti(path: str | os.PathLike[str], masks: Masks) -> None:
    """Write labels as ``.nii``, or compressed as ``.nii.gz``; the names of objects are in a comment in the header.

    The image lies in the plane of the first two axes, rows running downwards. Units that are not known are said to be
    unknown; frame times that are not evenly spaced are left out.

    Raises
    ------
    WriteError
        When the disk refuses.
    """
    volume = masks.labels.transpose(2, 1, 0)
    volume = volume if len(masks) == 1 else volume[:, :, None]
    row, column = masks.spacing_mm or (1.0, 1.0)
    image = nibabel.Nifti1Image(volume, np.diag([-column, -row, 1.0, 1.0]))
    header, step_s = image.header, masks.frame_interval_s
    image.set_qform(image.affine, code=1)
    if volume.ndim == 4:
        header.set_zooms((column, row, 1.0, step_s or 1.0))
    header.set_xyzt_units("unknown" if masks.spacing_mm is None else "mm", "sec" if step_s else "unknown")
    names = {str(object_id): masks.name(object_id) for object_id in masks.ids}
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", json.dumps({"objects": names}).encode()))
    content = image.to_bytes()
    if Path(path).suffix.lower() == ".gz":
        content = gzip.compress(content, mtime=0)  # no time: the same masks are the same file
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
