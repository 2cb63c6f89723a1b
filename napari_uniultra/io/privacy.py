"""A copy of a DICOM still or loop that does not tell whose it is.

The Basic Application Level Confidentiality Profile (DICOM PS3.15 annex E) lists what has to go. Here it is the other
way round: what is listed below stays, and all else goes, private elements and unknown ones included, so that what a
later edition or a vendor adds cannot slip through. Nothing in the profile's list is kept but unique identifiers, which
are replaced, the same by the same, and what the format demands, which is replaced or left empty.

Pixels cannot be judged that safely: what lies outside the scan area is black, but somebody may have typed a name into
it, and finding it may fail. So the copy does not claim to be free of burned-in text. Somebody has to look.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_color_lut, get_encoder
from pydicom.sequence import Sequence
from pydicom.uid import UID, RLELossless, UID_dictionary, generate_uid

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.sector import find_sector
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, UniUltraError, WriteError
from napari_uniultra.io.quiet import quiet_pydicom
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.dicom_stored import stored_frames

_KEPT = (
    # what the picture is, and how it is stored
    "SOPClassUID", "Modality", "ImageType", "InstanceNumber", "SeriesNumber",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    *(f"{colour}PaletteColorLookupTable{part}"
      for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "PresentationLUTShape",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "UltrasoundColorDataPresent",
    # size and time
    "PixelSpacing", "PixelAspectRatio", "SequenceOfUltrasoundRegions",
    "FrameIncrementPointer", "FrameTime", "FrameTimeVector", "FrameDelay", "CineRate", "RecommendedDisplayFrameRate",
    "PreferredPlaybackSequencing", "StartTrim", "StopTrim", "EffectiveDuration", "HeartRate",
    "NumberOfStages", "StageNumber", "NumberOfViewsInStage", "ViewNumber",
    # how it was taken
    "Manufacturer", "ManufacturerModelName", "TransducerType", "TransducerFrequency", "DepthOfScanField",
    "MechanicalIndex", "BoneThermalIndex", "CranialThermalIndex", "SoftTissueThermalIndex",
)  # fmt: skip
_KEPT_IN_REGIONS = (
    "RegionSpatialFormat", "RegionDataType", "RegionFlags",
    "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1",
    "ReferencePixelX0", "ReferencePixelY0", "ReferencePixelPhysicalValueX", "ReferencePixelPhysicalValueY",
    "PhysicalUnitsXDirection", "PhysicalUnitsYDirection", "PhysicalDeltaX", "PhysicalDeltaY",
    "TransducerFrequency", "PulseRepetitionFrequency", "DopplerCorrectionAngle", "SteeringAngle",
    "PixelComponentOrganization", "PixelComponentPhysicalUnits", "PixelComponentDataType",
)  # fmt: skip
_KEPT_IN = {
    "SequenceOfUltrasoundRegions": _KEPT_IN_REGIONS,
    "VOILUTSequence": ("LUTDescriptor", "LUTData"),
    "ModalityLUTSequence": ("LUTDescriptor", "LUTData", "ModalityLUTType"),
}
_TEXT = ("Manufacturer", "ManufacturerModelName")
_TABLE_TYPES = ("OD", "HU", "US")  # what a modality's table gives: defined terms, in an element that may hold any text
_NUMBERS = {"DS", "IS", "US", "UL", "SS", "SL", "FD", "FL", "AT"}
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")
_REPLACED_UIDS = "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"
_EMPTY = (
    "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
    "Laterality", "PatientOrientation",
)  # fmt: skip
_PROFILE = "Basic Application Confidentiality Profile"
_OFFSET_TABLE_BYTES = 1 << 31  # a basic table counts in 32 bits
_KEY_BYTES = 32


@dataclass(frozen=True)
class Pseudonyms:
    """Stand-ins for names and unique identifiers: the same for the same, and without the key nobody can tell whose.

    Parameters
    ----------
    key : bytes
        Random by default. Keep it, and files of a later day get the same stand-ins; whoever has it can find out by
        trying which name a stand-in belongs to.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(_KEY_BYTES), repr=False)

    def patient(self, original: str) -> str:
        """A stand-in for a patient's name and ID, such as ``P3F9A01C2D4``."""
        return f"P{self._digest('patient', original).hex()[:10].upper()}"

    def uid(self, original: str) -> UID:
        """A stand-in for a unique identifier, derived from a UUID as PS3.5 B.2 has it."""
        return UID(f"2.25.{int.from_bytes(self._digest('uid', original)[:16], 'big')}")

    def _digest(self, kind: str, original: str) -> bytes:
        return hmac.digest(self.key, f"{kind}:{original.strip()}".encode(), hashlib.sha256)


def write_pseudonymised(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    pseudonyms: Pseudonyms | None = None,
    sector: np.ndarray | None = None,
    whole_picture: bool = False,
) -> None:
    """Copy a DICOM still or loop without what identifies the patient.

    The pixels of the scan area are those of the source, bit for bit as its decoder gives them (of a video as RGB),
    compressed without loss (RLE). All others are black: scanners write names, dates and numbers there.

    Parameters
    ----------
    source, target : path
        ``target``'s name is the caller's; the source's may hold a name.
    pseudonyms : Pseudonyms, optional
        Give the same for all files that belong together. By default new, so that no other file gets the same.
    sector : ndarray, optional
        (H, W) bool, the scan area. By default what the file's tags and the picture itself say.
    whole_picture : bool
        Leave the picture as it is. Only for pictures that were looked at: there may be a name in it.

    Raises
    ------
    ReadError
        When the source is no DICOM picture, damaged, or of a kind that has no copy without loss.
    WriteError
        When no scan area is known, so that it cannot be told where text may be, or the disk refuses.
    """
    source = Path(source)
    cine = read_cine(source)
    if cine.details.get("format") != "DICOM":
        raise ReadError(f"{source.name} is not a DICOM file", fix="Only these hold a patient's data in a known place")
    kept_area = None if whole_picture else _kept_area(cine, sector, source.name)
    pseudonyms = pseudonyms or Pseudonyms()
    with quiet_pydicom():
        try:
            original = pydicom.dcmread(source, stop_before_pixels=True, force=True)
            copy = _header(original, pseudonyms)
            _check_class(copy, source.name)
            frames = _encoded_frames(source, copy, kept_area)
            _describe_deidentification(copy, kept_area is not None)
        except UniUltraError:
            raise
        except Exception as error:  # a damaged file can raise anything, and quote a patient's data in its message
            raise ReadError(f"{source.name} cannot be copied", f"it is damaged ({type(error).__name__})") from None
        _set_pixels(copy, frames)
        with atomic_path(target) as temporary:
            copy.save_as(temporary, enforce_file_format=True)


def _kept_area(cine: Cine, sector: np.ndarray | None, name: str) -> np.ndarray:
    area = find_sector(cine) if sector is None else np.asarray(sector, dtype=bool)
    if area is None or area.shape != cine.shape_hw:
        raise WriteError(
            f"{name} was not copied",
            "its scan area is not known, and a name may be written beside it",
            "Look at the picture; where it shows no name, copy the whole of it (--whole-picture in a shell)",
        )
    return area


# The header ----------------------------------------------------------------------------------------------------------


def _header(original: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    copy = Dataset()  # with a preamble of zeros: that of the source may be a program
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = RLELossless
    copy.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _KEPT:
        _keep(original, copy, keyword)
    for keyword in _REPLACED_UIDS:
        uid = original.get(keyword)
        setattr(copy, keyword, pseudonyms.uid(str(uid)) if uid else generate_uid())
    copy.PatientID = copy.PatientName = _patient(original, pseudonyms)
    for keyword in _EMPTY:
        setattr(copy, keyword, "")
    return copy


def _check_class(copy: Dataset, name: str) -> None:
    if copy.get("SOPClassUID") not in UID_dictionary:
        why = "its SOP class is missing, or none of the DICOM standard, so that it may hold anything"
        raise ReadError(f"{name} cannot be copied", why, "Export it again as an image of the standard")


def _patient(original: Dataset, pseudonyms: Pseudonyms) -> str:
    who = str(original.get("PatientID") or original.get("PatientName") or original.get("StudyInstanceUID") or "")
    return pseudonyms.patient(who) if who else "P"


def _keep(original: Dataset, copy: Dataset, keyword: str) -> None:
    """Copy an element whose content is of the kind that the standard says; another may hold anything."""
    if keyword not in original:
        return
    element = original[keyword]
    known_vr = dictionary_VR(tag_for_keyword(keyword))
    if element.VR not in known_vr or element.is_empty:
        return
    if element.VR == "SQ":
        items = [kept for item in element.value if (kept := _item(item, _KEPT_IN[keyword]))]
        if items:
            copy[keyword] = DataElement(element.tag, "SQ", Sequence(items))
    elif _is_harmless(keyword, element):
        copy[keyword] = DataElement(element.tag, element.VR, element.value)


def _item(item: Dataset, keywords: tuple[str, ...]) -> Dataset:
    kept = Dataset()
    for keyword in keywords:
        _keep(item, kept, keyword)
    return kept


def _is_harmless(keyword: str, element: DataElement) -> bool:
    values = element.value if element.VM > 1 else [element.value]
    if element.VR in _NUMBERS:
        return all(_is_number(value) for value in values)
    if element.VR == "CS":
        return all(_CODE.fullmatch(str(value)) for value in values)
    if keyword == "ModalityLUTType":
        return element.value in _TABLE_TYPES
    return keyword in _TEXT or element.VR in ("UI", "OW", "OB")


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _describe_deidentification(copy: Dataset, cleaned: bool) -> None:
    profile = Dataset()
    profile.CodeValue, profile.CodingSchemeDesignator, profile.CodeMeaning = "113100", "DCM", _PROFILE
    copy.PatientIdentityRemoved = "YES"
    copy.DeidentificationMethod = [_PROFILE, "Black outside the scan area" if cleaned else "Picture as it was"]
    copy.DeidentificationMethodCodeSequence = Sequence([profile])
    copy.LongitudinalTemporalInformationModified = "REMOVED"


# The picture ---------------------------------------------------------------------------------------------------------


def _encoded_frames(source: Path, copy: Dataset, kept_area: np.ndarray | None) -> list[bytes]:
    """The frames, black outside the kept area and compressed; the copy's header is made to fit them."""
    encoder, encoded = get_encoder(RLELossless), []
    for pixels, model in stored_frames(source):
        if not encoded:
            _check_kind(pixels, source.name)
            _describe_pixels(copy, pixels, model)
        if kept_area is not None:
            pixels = np.array(pixels)
            pixels[~kept_area] = _black(copy)
        encoded.append(encoder.encode(pixels, **_encoding(copy)))
    if "NumberOfFrames" in copy or len(encoded) > 1:
        copy.NumberOfFrames = len(encoded)
    return encoded


def _check_kind(pixels: np.ndarray, name: str) -> None:
    if pixels.dtype.kind == "f" or pixels.dtype.itemsize > 2:
        why = "the compression of the copy (RLE) holds whole numbers of up to 16 bits, and its pixels are others"
        raise ReadError(f"{name} cannot be copied", why, "Export it with 8 or 16 bits")


def _describe_pixels(copy: Dataset, pixels: np.ndarray, model: str) -> None:
    """What the frames are, where they are stored in another way than in the source, or that does not say it."""
    copy.PhotometricInterpretation = model
    copy.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        copy.PlanarConfiguration = 0
    if copy.get("BitsAllocated") == 1 or not copy.get("BitsStored"):
        copy.BitsStored = pixels.dtype.itemsize * 8
        copy.HighBit = copy.BitsStored - 1
    copy.BitsAllocated = pixels.dtype.itemsize * 8
    copy.PixelRepresentation = int(pixels.dtype.kind == "i")


def _encoding(copy: Dataset) -> dict[str, Any]:
    options = {
        "rows": copy.Rows,
        "columns": copy.Columns,
        "samples_per_pixel": copy.SamplesPerPixel,
        "number_of_frames": 1,
        "bits_allocated": copy.BitsAllocated,
        "bits_stored": copy.BitsStored,
        "pixel_representation": copy.PixelRepresentation,
        "photometric_interpretation": copy.PhotometricInterpretation,
    }
    return options | ({"planar_configuration": 0} if copy.SamplesPerPixel == 3 else {})


def _black(copy: Dataset) -> Any:
    model, bits, signed = copy.PhotometricInterpretation, int(copy.BitsStored), copy.PixelRepresentation == 1
    if model == "PALETTE COLOR":
        colours = apply_color_lut(np.arange(1 << bits, dtype=f"uint{copy.BitsAllocated}"), copy)
        return int(colours.astype(int).sum(axis=1).argmin())
    if model.startswith("YBR"):
        return 0, 128, 128
    darkest = -(1 << (bits - 1)) if signed else 0
    return darkest + (1 << bits) - 1 if model == "MONOCHROME1" else darkest


def _set_pixels(copy: Dataset, frames: list[bytes]) -> None:
    if sum(map(len, frames)) < _OFFSET_TABLE_BYTES:
        copy.PixelData = encapsulate(frames)
    else:
        copy.PixelData, copy.ExtendedOffsetTable, copy.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    copy["PixelData"].VR = "OB"
    copy["PixelData"].is_undefined_length = True


# Names and keys ------------------------------------------------------------------------------------------------------


def copy_name(source: str | os.PathLike[str], pseudonyms: Pseudonyms) -> str:
    """A file name for the copy, made of pseudonyms: the source's may hold the patient's.

    Raises
    ------
    ReadError
        When the source cannot be read.
    """
    source = Path(source)
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(source, stop_before_pixels=True, force=True)
            patient, instance = _patient(header, pseudonyms), str(header.get("SOPInstanceUID") or source.resolve())
    except OSError as error:
        fix = f"Name the files in it, as in {source / '*'}" if source.is_dir() else "Check the path"
        raise ReadError(f"{source} cannot be opened", error.strerror or "", fix) from error
    except Exception as error:  # a damaged header can raise anything, and quote a patient's data in its message
        raise ReadError(f"{source.name} cannot be read", f"it is damaged ({type(error).__name__})") from None
    return f"{patient}_{pseudonyms.uid(instance)[-8:]}.dcm"


def write_key(path: str | os.PathLike[str], key: bytes) -> None:
    """Keep the secret of `Pseudonyms` in a file that only its owner may read.

    Raises
    ------
    WriteError
        When the disk refuses.
    """
    with atomic_path(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(key.hex() + "\n", encoding="ascii")


def read_key(path: str | os.PathLike[str]) -> bytes:
    """Read what `write_key` wrote.

    Raises
    ------
    ReadError
        When it is no such file.
    """
    path = Path(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ReadError(f"{path.name} holds no key of pseudonyms", fix="Name another file") from error
    if len(key) != _KEY_BYTES:
        raise ReadError(f"{path.name} holds no key of pseudonyms", f"it is {len(key)} bytes long, not {_KEY_BYTES}")
    return key
