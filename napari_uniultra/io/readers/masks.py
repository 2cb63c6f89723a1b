"""Files of masks, ours and those of other tools: TIFF, NRRD, NIfTI, PNG, COCO JSON and DICOM segmentations."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from napari_uniultra.core.masks import Masks
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, WriteError
from napari_uniultra.io.quiet import quiet_pydicom
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.dicom_stored import stored_frames
from napari_uniultra.io.readers.images import image_files
from napari_uniultra.io.readers.itk import stored_values
from napari_uniultra.io.readers.lazy import check_size

_MAX_JSON_BYTES = 1 << 30
_ITK = (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".gz")
_FEW_VALUES = 64  # no picture has fewer
_MOST_PIECES = 1.8  # of an object in a row of pixels, on average
_LAYER = re.compile(r"Segment\d+_Layer")


def read_masks(path: str | os.PathLike[str], frames: int | None = None) -> Masks:
    """Read a file or folder of masks with what it says of names, spacing and times.

    Parameters
    ----------
    path : path
    frames : int, optional
        How many frames the loop has that they belong to. A DICOM segmentation need not hold those without a mask: it
        gets as many empty ones. A longer one stays as it is.

    Raises
    ------
    ReadError
        When it cannot be read, or does not hold masks: whole numbers, one channel, no picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            return _coco(path)
        if suffix in (".dcm", ".dicom"):
            return _dicom(path, frames)
        cine = read_cine(path)  # which also refuses what is damaged or far too large
        if cine.details.get("format") == "DICOM":
            return _dicom(path, frames)
        masks = Masks(_pixels(path, cine), _names(path), cine.spacing_mm, cine.frame_times_s)
    except WriteError as error:
        raise ReadError(f"{path.name} holds no masks", error.why or error.what) from error
    if any(_is_picture(masks.labels[frame]) for frame in {0, len(masks) // 2}):
        why = "it is a picture: its numbers are shades of grey"
        raise ReadError(f"{path.name} holds no masks", why, "Give masks, which have one number for each object")
    return masks


def _is_picture(labels: np.ndarray) -> bool:
    """Whether (H, W) numbers are those of a picture: many, and each of them again and again in a row of pixels.

    In rows of masks an object is mostly in one piece: at most 1.1 pieces in the data at hand, 2.0 and more in pictures.
    """
    if len(np.unique(labels)) <= _FEW_VALUES:
        return False
    begins = labels > 0
    begins[:, 1:] &= labels[:, 1:] != labels[:, :-1]
    rows, _ = np.nonzero(begins)
    objects = np.unique(rows * (1 << 16) + labels[begins])
    return len(rows) > _MOST_PIECES * len(objects)


def _pixels(path: Path, cine: Cine) -> np.ndarray:
    """Labels as stored: a `Cine` would scale them to what can be shown."""
    shape = cine.frames.shape[:3]
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".png":
        files = image_files(path) if path.is_dir() else [path]
        pixels = np.stack([_picture(file) for file in files])
    elif suffix in _ITK:
        pixels = _itk_pixels(path)
    elif suffix in (".tif", ".tiff"):
        pixels = tifffile.imread(path)
    else:
        raise ReadError(f"{path.name} holds no masks", fix="Give TIFF, NRRD, NIfTI, PNG, COCO or DICOM masks")
    if pixels.size != np.prod(shape):
        raise ReadError(f"{path.name} holds no masks", f"it has {pixels.size // np.prod(shape)} channels")
    return pixels.reshape(shape)


def _itk_pixels(path: Path) -> np.ndarray:
    if len({value for key, value in _itk_fields(path).items() if _LAYER.fullmatch(key)}) > 1:
        why = "its segments overlap, so that they lie in several layers"
        raise ReadError(f"{path.name} cannot be read", why, "Collapse the layers in 3D Slicer and save it again")
    return stored_values(path)


def _picture(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def _names(path: Path) -> dict[int, str]:
    """Names of objects, where the format has a place for them."""
    if path.suffix.lower() == ".nrrd":
        return _nrrd_names(path)
    if path.suffix.lower() in (".nii", ".gz"):
        return _nifti_names(path)
    return _sidecar_names(path / "meta.json" if path.is_dir() else path.with_suffix(".json"))


def _nrrd_names(path: Path) -> dict[int, str]:
    fields = _itk_fields(path)
    names = {}
    for index in range(len(fields)):
        name, value = f"Segment{index}_Name", f"Segment{index}_LabelValue"
        if name not in fields:
            break
        if fields.get(value, "").isdecimal():
            names[int(fields[value])] = fields[name]
    return names


def _itk_fields(path: Path) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def _nifti_names(path: Path) -> dict[int, str]:
    import nibabel

    for extension in nibabel.load(path).header.extensions:
        try:
            content = json.loads(bytes(extension.get_content()).rstrip(b"\0"))
        except (ValueError, TypeError):  # somebody else's comment
            continue
        names = _names_in(content)
        if names:
            return names
    return {}


def _sidecar_names(path: Path) -> dict[int, str]:
    return _names_in(_json(path)) if path.is_file() else {}


def _names_in(content: Any) -> dict[int, str]:
    objects = content.get("objects") if isinstance(content, dict) else None
    pairs = objects.items() if isinstance(objects, dict) else ()
    return {int(key): value for key, value in pairs if str(key).isdecimal() and isinstance(value, str)}


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ReadError(f"{path.name} cannot be read", "it is far too large")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError(f"{path.name} cannot be read", "it is not valid JSON") from error


def _coco(path: Path) -> Masks:
    from pycocotools import mask as run_length

    content = _json(path)
    try:
        images = sorted(content["images"], key=lambda image: image.get("frame", image["id"]))
        places = {image["id"]: place for place, image in enumerate(images)}
        labels = np.zeros((len(images), images[0]["height"], images[0]["width"]), np.uint16)
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        names = {}
        for entry in content["annotations"]:
            object_id = entry.get("object_id", entry["category_id"])
            labels[places[entry["image_id"]]][run_length.decode(entry["segmentation"]).astype(bool)] = object_id
            names[object_id] = categories[entry["category_id"]]
        spacing = content.get("info", {}).get("spacing_mm")
        times = [image["time_s"] for image in images] if all("time_s" in image for image in images) else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(f"{path.name} holds no masks", "it is not COCO JSON with run-length masks") from error
    return Masks(labels, names, None if spacing is None else tuple(spacing), times)


def _dicom(path: Path, of_loop: int | None) -> Masks:
    """A DICOM segmentation, its frames in the places of the frames that they were made on, of a loop of that length."""
    from highdicom.seg import segread

    try:
        with quiet_pydicom():
            segmentation = segread(path)
            names, ids = {}, {}
            for segment in segmentation.SegmentSequence:
                ids[segment.SegmentNumber] = _object_id(segment)
                names[ids[segment.SegmentNumber]] = str(segment.get("SegmentDescription") or segment.SegmentLabel)
            measures = segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
            spacing = None if not measures else tuple(float(value) for value in measures[0].PixelSpacing)
            places = [_place(groups) for groups in segmentation.PerFrameFunctionalGroupsSequence]
            found = [
                (frame, ids[segment], pixels != 0)
                for (frame, segment), (pixels, _) in zip(places, stored_frames(path), strict=True)
            ]
            shape_hw = found[0][2].shape
    except Exception as error:  # a damaged file can raise anything, and quote a patient's data in its message
        why = f"it is no segmentation with references to frames, or damaged ({type(error).__name__})"
        raise ReadError(f"{path.name} holds no masks", why) from None
    numbered = [frame for frame, _, _ in found if frame is not None]
    length = max(of_loop or 0, max(numbered) + 1) if numbered else 1
    check_size(path.name, length, *shape_hw)
    labels = np.zeros((length, *shape_hw), np.uint16)
    for frame, object_id, mask in found:
        labels[frame or 0][mask] = object_id
    return Masks(labels, names, spacing)


def _place(groups: Any) -> tuple[int | None, int]:
    """(frame of the source from 0, or None when that is a still; segment number) of a frame."""
    number = groups.DerivationImageSequence[0].SourceImageSequence[0].get("ReferencedFrameNumber")
    segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    if number is not None and int(number) < 1:
        raise ValueError("frames count from 1")
    return None if number is None else int(number) - 1, int(segment)


def _object_id(segment: Any) -> int:
    """Our own number of an object, which the format has no field for, else the segment's."""
    words = str(segment.get("TrackingID", "")).split()
    is_ours = len(words) == 2 and words[0] == "object" and words[1].isdecimal()
    return int(words[1]) if is_ours else int(segment.SegmentNumber)
