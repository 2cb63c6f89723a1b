"""Files of masks, ours and those of other tools: TIFF, NRRD, NIfTI, PNG, COCO JSON and DICOM segmentations."""

from __future__ import annotations

import json
import os
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
from napari_uniultra.io.readers.images import image_files

_MAX_JSON_BYTES = 1 << 30
_ITK = (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".gz")


def read_masks(path: str | os.PathLike[str]) -> Masks:
    """Read a file or folder of masks with what it says of names, spacing and times.

    Raises
    ------
    ReadError
        When it cannot be read, or does not hold masks: whole numbers, one channel.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            return _coco(path)
        if suffix in (".dcm", ".dicom"):
            return _dicom(path)
        cine = read_cine(path)  # which also refuses what is damaged or far too large
        if cine.details.get("format") == "DICOM":
            return _dicom(path)
        return Masks(_pixels(path, cine), _names(path), cine.spacing_mm, cine.frame_times_s)
    except WriteError as error:
        raise ReadError(f"{path.name} holds no masks", error.why or error.what) from error


def _pixels(path: Path, cine: Cine) -> np.ndarray:
    """Labels as stored: a `Cine` would scale them to what can be shown."""
    shape = cine.frames.shape[:3]
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".png":
        files = image_files(path) if path.is_dir() else [path]
        pixels = np.stack([_picture(file) for file in files])
    elif suffix in _ITK:
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    elif suffix in (".tif", ".tiff"):
        pixels = tifffile.imread(path)
    else:
        raise ReadError(f"{path.name} holds no masks", fix="Give TIFF, NRRD, NIfTI, PNG, COCO or DICOM masks")
    if pixels.size != np.prod(shape):
        raise ReadError(f"{path.name} holds no masks", f"it has {pixels.size // np.prod(shape)} channels")
    return pixels.reshape(shape)


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
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    keys = set(reader.GetMetaDataKeys())
    names = {}
    for index in range(len(keys)):
        name, value = f"Segment{index}_Name", f"Segment{index}_LabelValue"
        if name not in keys:
            break
        if value in keys and reader.GetMetaData(value).isdecimal():
            names[int(reader.GetMetaData(value))] = reader.GetMetaData(name)
    return names


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


def _dicom(path: Path) -> Masks:
    """A DICOM segmentation, its frames in the places of the frames that they were made on."""
    from highdicom.seg import segread

    try:
        with quiet_pydicom():
            segmentation = segread(path)
            frames = [_source_frame(groups) for groups in segmentation.PerFrameFunctionalGroupsSequence]
            pixels = np.asarray(segmentation.pixel_array).reshape(len(frames), segmentation.Rows, segmentation.Columns)
            names, ids = {}, {}
            for segment in segmentation.SegmentSequence:
                ids[segment.SegmentNumber] = _object_id(segment)
                names[ids[segment.SegmentNumber]] = str(segment.get("SegmentDescription") or segment.SegmentLabel)
            measures = segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
            spacing = None if not measures else tuple(float(value) for value in measures[0].PixelSpacing)
    except Exception as error:  # a damaged file can raise anything, and quote a patient's data in its message
        why = f"it is no segmentation with references to frames, or damaged ({type(error).__name__})"
        raise ReadError(f"{path.name} holds no masks", why) from None
    labels = np.zeros((max(frame for frame, _ in frames) + 1, *pixels.shape[1:]), np.uint16)
    for (frame, segment), bits in zip(frames, pixels, strict=True):
        labels[frame][bits != 0] = ids[segment]
    return Masks(labels, names, spacing)


def _source_frame(groups: Any) -> tuple[int, int]:
    """(frame of the source from 0, segment number) of a frame."""
    image = groups.DerivationImageSequence[0].SourceImageSequence[0]
    number = image.get("ReferencedFrameNumber", 1)
    return int(number) - 1, int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _object_id(segment: Any) -> int:
    """Our own number of an object, which the format has no field for, else the segment's."""
    words = str(segment.get("TrackingID", "")).split()
    is_ours = len(words) == 2 and words[0] == "object" and words[1].isdecimal()
    return int(words[1]) if is_ours else int(segment.SegmentNumber)
