"""The file formats of masks: one list, used by *File > Save* in the viewer and by the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from napari_uniultra.core.masks import Masks
from napari_uniultra.errors import WriteError


@dataclass(frozen=True)
class MaskFormat:
    """One format.

    Attributes
    ----------
    name : str
        For the command line.
    title : str
        For people.
    suffixes : tuple of str
        The first is the usual one. Formats of a folder per loop have one as well: the folder is named without it.
    writer : str
        ``module:function``; it is imported when it is used.
    needs_loop : bool
        Whether ``Masks.cine`` is needed.
    may_hold_patient_data : bool
        Whether the function takes ``patient_data``.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    writer: str
    needs_loop: bool = False
    may_hold_patient_data: bool = False


FORMATS = (
    MaskFormat("tiff", "TIFF stack", (".tif", ".tiff"), "masks:write_tiff"),
    MaskFormat("nrrd", "3D Slicer segmentation", (".seg.nrrd", ".nrrd"), "nrrd:write_nrrd"),
    MaskFormat("nifti", "NIfTI", (".nii.gz", ".nii"), "nifti:write_nifti"),
    MaskFormat("dicom", "DICOM segmentation", (".dcm",), "dicom_seg:write_dicom_seg", True, True),
    MaskFormat("coco", "COCO JSON", (".json",), "coco:write_coco"),
    MaskFormat("yolo", "YOLO polygons, a folder", (".yolo",), "frames:write_yolo"),
    MaskFormat("png", "PNG, one per frame", (".png",), "frames:write_png"),
    MaskFormat("mp4", "Video with contours", (".mp4",), "overlay:write_overlay", True, True),
    MaskFormat("gif", "Animation with contours", (".gif",), "overlay:write_overlay", True, True),
)
FORMAT_NAMES = tuple(entry.name for entry in FORMATS)


def format_of(path: str | os.PathLike[str], name: str | None = None) -> MaskFormat:
    """The format called ``name``, or else the one that the path's suffix stands for.

    Raises
    ------
    WriteError
        When there is no such format.
    """
    if name is not None:
        found = next((entry for entry in FORMATS if entry.name == name), None)
    else:
        file = Path(path).name.lower()
        found = next((entry for entry in FORMATS if file.endswith(entry.suffixes)), None)
    if found is None:
        asked = f"in the format {name!r}" if name else f"as {Path(path).suffix or 'a file without a suffix'}"
        known = ", ".join(FORMAT_NAMES if name else (entry.suffixes[0] for entry in FORMATS))
        raise WriteError(f"Masks cannot be saved {asked}", fix=f"Use one of {known}")
    return found


def usual_path(folder: Path, name: str) -> Path:
    """The file or folder in ``folder`` that masks in the format called ``name`` are usually written to.

    Raises
    ------
    WriteError
        When there is no such format.
    """
    usual = {"png": "masks_png", "yolo": "masks_yolo", "gif": "overlay.gif", "mp4": "overlay.mp4"}
    return folder / usual.get(name, f"masks{format_of('', name).suffixes[0]}")


def write_masks(
    path: str | os.PathLike[str], masks: Masks, name: str | None = None, patient_data: bool = False
) -> list[Path]:
    """Write masks in the format called ``name`` or, without one, that of the path's suffix.

    Parameters
    ----------
    path : path
    masks : Masks
    name : str, optional
        One of `FORMAT_NAMES`.
    patient_data : bool
        Where the format can hold it, keep what may identify the patient: name and study in a DICOM segmentation, what
        is written beside the scan area in a video.

    Returns
    -------
    list of Path
        The files or folders that were written.

    Raises
    ------
    WriteError
        When the format is not known, needs the loop and there is none, cannot hold these masks, or the disk refuses.
    """
    chosen = format_of(path, name)
    if chosen.needs_loop and masks.cine is None:
        raise WriteError(
            f"{Path(path).name} was not written",
            f"the format {chosen.name} needs the loop that the masks belong to",
            "Give the loop (--loop in a shell), or choose another format",
        )
    module, _, function = chosen.writer.partition(":")
    write = getattr(import_module(f"napari_uniultra.io.writers.{module}"), function)
    options = {"patient_data": patient_data} if chosen.may_hold_patient_data else {}
    written: Sequence[Path] | None = write(path, masks, **options)
    return [Path(path)] if written is None else list(written)
