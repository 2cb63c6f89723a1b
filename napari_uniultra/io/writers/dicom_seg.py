"""Masks as a DICOM segmentation object that refers to the frames of the loop it was made on.

Ultrasound has no frame of reference: its pictures lie nowhere in the patient. Libraries that place a segmentation by
positions in space therefore refuse loops of more than one frame. The standard asks for no position where every frame of
the segmentation names the frame that it was derived from (PS3.3 A.51.3: the Frame of Reference module is required only
without the Derivation Image macro), so that is what is written here. The frames' dimensions are the segment and the
place in a stack, which is the source's frame number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from napari_uniultra import __version__
from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.masks import Masks
from napari_uniultra.errors import WriteError
from napari_uniultra.io.quiet import quiet_pydicom

_NAME = "napari-uniultra"
_TISSUE = Code("85756007", "SCT", "Tissue")
_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_SOURCE = Code("121322", "DCM", "Source image for image processing operation")
_METHOD = Code("123109", "DCM", "Manual Processing")
_ABOUT_THE_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_ABOUT_THE_STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
_LABEL_LENGTH = 64  # of the value representation LO


def write_dicom_seg(path: str | os.PathLike[str], masks: Masks, patient_data: bool = False) -> None:
    """Write a binary segmentation, one segment per object in order of their ids, of the frames where there is one.

    The first object's mask of the last frame is always there, be it empty: it says how many frames the loop has.

    The unique identifiers of study, series and image are those of the source, or it could not be referred to.

    Parameters
    ----------
    path : path
    masks : Masks
        ``masks.cine`` is a loop that was opened from a DICOM file.
    patient_data : bool
        Copy patient and study from the source. By default they are empty.

    Raises
    ------
    WriteError
        When the loop did not come from a DICOM file, or that has gone or changed, there are no objects, or the disk
        refuses.
    """
    source = _source(masks)
    if not masks.ids:
        raise WriteError("The segmentation was not written", "there are no objects in it")
    with quiet_pydicom():
        dataset = _dataset(source, masks, patient_data)
        with atomic_path(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)


def _source(masks: Masks) -> Dataset:
    """The header of the loop's DICOM file."""
    cine = masks.cine
    if cine is None or cine.details.get("format") != "DICOM":
        raise WriteError(
            "A DICOM segmentation cannot be written",
            "it refers to the frames of a DICOM file, and this loop did not come from one",
            "Choose another format",
        )
    path = Path(cine.source)
    try:
        with quiet_pydicom():
            source = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            found = int(source.get("NumberOfFrames") or 1), int(source.Rows), int(source.Columns)
            identified = all(source.get(key) for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"))
    except Exception as error:  # a damaged header can raise anything, and quote a patient's data in its message
        raise WriteError(f"{path.name} cannot be read again", type(error).__name__, "Open the loop anew") from None
    if found != masks.labels.shape or not identified:
        raise WriteError(
            f"A segmentation cannot refer to {path.name}",
            "it is not the file that the loop was opened from, or has no unique identifiers",
        )
    return source


def _dataset(source: Dataset, masks: Masks, patient_data: bool) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SegmentationStorage, generate_uid()
    for key in (*_ABOUT_THE_PATIENT, *_ABOUT_THE_STUDY):
        setattr(dataset, key, source.get(key, "") if patient_data else "")
    dataset.StudyInstanceUID = source.StudyInstanceUID
    _describe_series(dataset)
    _describe_pixels(dataset, masks)
    dataset.ReferencedSeriesSequence = Sequence([_referenced_series(source)])
    dataset.SegmentSequence = Sequence(
        [_segment(number, masks, object_id) for number, object_id in enumerate(masks.ids, start=1)]
    )
    _add_frames(dataset, source, masks)
    return dataset


def _describe_series(dataset: Dataset) -> None:
    dataset.Modality = "SEG"
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = generate_uid(), 1, 1
    dataset.SeriesDescription = "Segmentation"
    dataset.Manufacturer = dataset.ManufacturerModelName = _NAME
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "0", __version__
    dataset.ContentLabel, dataset.ContentDescription, dataset.ContentCreatorName = "SEGMENTATION", "", ""
    dataset.ContentDate, dataset.ContentTime = "19000101", "000000"  # required, and nobody's business


def _describe_pixels(dataset: Dataset, masks: Masks) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.Rows, dataset.Columns = masks.shape_hw
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"
    dataset.SegmentationType, dataset.SegmentsOverlap = "BINARY", "NO"


def _referenced_series(source: Dataset) -> Dataset:
    series, instance = Dataset(), Dataset()
    series.SeriesInstanceUID = source.get("SeriesInstanceUID") or generate_uid()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    series.ReferencedInstanceSequence = Sequence([instance])
    return series


def _segment(number: int, masks: Masks, object_id: int) -> SegmentDescription:
    name = " ".join(masks.name(object_id).split()).replace("\\", "/")  # a backslash parts values
    segment = SegmentDescription(
        segment_number=number,
        segment_label=name[:_LABEL_LENGTH],
        segmented_property_category=_TISSUE,
        segmented_property_type=_TISSUE,
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(_NAME, _METHOD, __version__),
        tracking_id=f"object {object_id}",
        tracking_uid=generate_uid(),
        display_color=CIELabColor.from_rgb(*masks.colour(object_id)),
    )
    segment.SegmentDescription = name[:1024]
    return segment


def _add_frames(dataset: Dataset, source: Dataset, masks: Masks) -> None:
    shared = Dataset()
    if masks.spacing_mm is not None:
        shared.PixelMeasuresSequence = PixelMeasuresSequence(pixel_spacing=masks.spacing_mm, slice_thickness=None)
        # Empty, since nobody knows it; but highdicom's reader takes no pixel measures without the element.
        shared.PixelMeasuresSequence[0].SliceThickness = None
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    _add_dimensions(dataset)
    kept = list(_frames(masks))
    dataset.NumberOfFrames = len(kept)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [_frame_groups(segment, frame, source) for segment, frame in kept]
    )
    bits = np.stack([masks.labels[frame] == masks.ids[segment - 1] for segment, frame in kept])
    dataset.PixelData = pack_bits(bits.astype(np.uint8), pad=True)
    dataset["PixelData"].VR = "OB"


def _frames(masks: Masks) -> Iterator[tuple[int, int]]:
    """(segment number, frame) where there is something, and the last frame of the first segment."""
    present = [set(np.unique(labels).tolist()) for labels in masks.labels]
    present[-1].add(masks.ids[0])
    for number, object_id in enumerate(masks.ids, start=1):
        yield from ((number, frame) for frame, ids in enumerate(present) if object_id in ids)


def _add_dimensions(dataset: Dataset) -> None:
    organisation = Dataset()
    organisation.DimensionOrganizationUID = generate_uid()
    dataset.DimensionOrganizationSequence = Sequence([organisation])
    dimensions = []
    for keyword, group in (
        ("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        ("InStackPositionNumber", "FrameContentSequence"),
    ):
        item = Dataset()
        item.DimensionOrganizationUID = organisation.DimensionOrganizationUID
        item.DimensionIndexPointer, item.FunctionalGroupPointer = Tag(keyword), Tag(group)
        item.DimensionDescriptionLabel = keyword
        dimensions.append(item)
    dataset.DimensionIndexSequence = Sequence(dimensions)


def _frame_groups(segment: int, frame: int, source: Dataset) -> Dataset:
    """Which segment a frame shows, and which frame of the source it was made on; DICOM counts both from 1."""
    groups, identification, content = Dataset(), Dataset(), Dataset()
    identification.ReferencedSegmentNumber = segment
    groups.SegmentIdentificationSequence = Sequence([identification])
    content.StackID, content.InStackPositionNumber = "1", frame + 1
    content.DimensionIndexValues = [segment, frame + 1]
    groups.FrameContentSequence = Sequence([content])
    image, derivation = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    image.SpatialLocationsPreserved = "YES"
    if "NumberOfFrames" in source:
        image.ReferencedFrameNumber = frame + 1
    image.PurposeOfReferenceCodeSequence = Sequence([_coded(_SOURCE)])
    derivation.SourceImageSequence = Sequence([image])
    derivation.DerivationCodeSequence = Sequence([_coded(_SEGMENTATION)])
    groups.DerivationImageSequence = Sequence([derivation])
    return groups


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
