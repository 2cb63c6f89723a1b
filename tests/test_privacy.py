"""The copy of a DICOM loop tells nothing of the patient, and everything of the ultrasound."""

from __future__ import annotations

import io
import logging
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import av
import imagecodecs
import numpy as np
import pydicom
import pytest
from no_gdcm import run_without_gdcm
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG4HP41,
    UID,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPIPHTJ2KReferenced,
    RLELossless,
)

from napari_uniultra.core.sector import find_sector
from napari_uniultra.errors import ReadError, WriteError
from napari_uniultra.io.privacy import Pseudonyms, write_pseudonymised
from napari_uniultra.io.readers import read_cine

CANARY = "CANARYX"
HERE = Path(__file__).parent
# Values of other kinds, each as unlikely to appear by chance as the canary.
VALUES: dict[str, Any] = {
    "DA": "18870613", "TM": "071358.271", "DT": "18870613071358.271", "AS": "113Y", "UI": "1.2.826.0.1.99.77777.1",
    "PN": f"{CANARY}^NAME", "DS": "77777.125", "IS": "7777712", "AE": CANARY, "UR": f"https://{CANARY}.example",
    "OB": CANARY.encode() + b"\0", "UN": CANARY.encode() + b"\0", "CS": CANARY, "SH": CANARY, "LO": CANARY,
    "ST": CANARY, "LT": CANARY, "UT": CANARY, "UC": CANARY,
}  # fmt: skip
TELLING = [CANARY, "18870613", "071358", "113Y", "99.77777", "77777.125", "7777712"]
FRAMES, HEIGHT, WIDTH = 4, 80, 100


def profile_tags() -> list[int]:
    lines = (HERE / "dicom_basic_profile.txt").read_text().splitlines()
    return [int(tag, 16) for line in lines if not line.startswith("#") for tag in line.split()]


def sector_of_loop() -> np.ndarray:
    sector = np.zeros((HEIGHT, WIDTH), bool)
    sector[20:75, 15:85] = True
    return sector


def write_loop(path: Path, model: str = "MONOCHROME2", bits: int = 8, **changes: Any) -> Path:
    """A loop with a scan area full of noise and text beside it, in which everything that can tell a name tells it."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.SourceApplicationEntityTitle = CANARY
    dataset.preamble = b"MZ" + CANARY.encode().ljust(126, b"\0")
    for tag in profile_tags():
        if tag >> 16 > 2:  # commands of the network and the file's own header have no place in a data set
            fill(dataset, tag)
    region = pydicom.Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 15, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 85, 75
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    region.add_new(0x00104000, "LT", CANARY)
    dataset.SequenceOfUltrasoundRegions = Sequence([region])
    private = dataset.private_block(0x0099, CANARY, create=True)
    private.add_new(1, "LO", CANARY)
    dataset.add_new(0x50000010, "US", 1)
    dataset.add_new(0x60004000, "LT", CANARY)
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.3.1", "US"
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = (
        f"{VALUES['UI']}.{number}" for number in (1, 2, 3)
    )
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset["TransducerType"] = pydicom.DataElement(0x00186031, "CS", f"{CANARY} and more", validation_mode=0)
    dataset.add_new(0x00181088, "IS", "72")
    dataset.FrameTime, dataset.NumberOfFrames = "33.3", FRAMES
    dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation = HEIGHT, WIDTH, model
    colour = model in ("RGB", "YBR_FULL")
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (8 if bits <= 8 else 16), bits, bits - 1
    dataset.PixelRepresentation = 0
    if model == "PALETTE COLOR":
        for name in ("Red", "Green", "Blue"):
            table = np.roll(np.arange(256), 40).astype(np.uint16) << 8
            setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(dataset, f"{name}PaletteColorLookupTableData", table.tobytes())
    dataset.update(changes)
    dataset.PixelData = pixels(colour, bits).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    return path


def pixels(colour: bool, bits: int) -> np.ndarray:
    shape = (FRAMES, HEIGHT, WIDTH, *([3] if colour else []))
    stack = np.full(shape, (1 << bits) // 2, np.uint8 if bits <= 8 else np.uint16)
    noise = np.random.default_rng(5).integers(0, 1 << bits, shape).astype(stack.dtype)
    stack[:, 20:75, 15:85] = noise[:, 20:75, 15:85]
    return stack


def fill(dataset: pydicom.Dataset, tag: int) -> None:
    """Put a value that would be recognised into an element of any kind."""
    vr = dictionary_VR(tag)
    if vr == "SQ":
        item = pydicom.Dataset()
        item.PatientName, item.StudyDate, item.SOPInstanceUID = VALUES["PN"], VALUES["DA"], VALUES["UI"]
        dataset.add_new(tag, "SQ", Sequence([item]))
    elif vr in VALUES:
        several = dictionary_VM(tag) not in ("1", "1-n", "1-2", "1-3", "1-8")
        dataset.add_new(tag, vr, [VALUES[vr]] * 3 if several and vr in ("DS", "IS") else VALUES[vr])


def test_nothing_in_the_profiles_list_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_loop(tmp_path / f"{CANARY}.dcm")
    assert all(word.encode() in source.read_bytes() for word in TELLING)
    caplog.set_level(logging.DEBUG)
    write_pseudonymised(source, tmp_path / "copy.dcm")
    content = (tmp_path / "copy.dcm").read_bytes()
    for word in TELLING:
        assert word.encode() not in content
    assert content[:128] == bytes(128)
    assert CANARY not in caplog.text
    copy = pydicom.dcmread(tmp_path / "copy.dcm")
    required = {"PatientName", "PatientID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientSex"}
    required |= {"PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"}
    listed = set(profile_tags())
    assert {element.keyword for element in copy if element.tag in listed} <= required
    assert not [element for element in copy.iterall() if element.tag.is_private]
    assert copy.PatientIdentityRemoved == "YES"
    assert copy.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert "BurnedInAnnotation" not in copy  # nobody has looked
    assert "TransducerType" not in copy
    assert copy.HeartRate == 72


def test_identifiers_of_one_run_belong_together(tmp_path: Path) -> None:
    first = write_loop(tmp_path / "a.dcm")
    second = write_loop(tmp_path / "b.dcm", SOPInstanceUID="1.2.3.4.5")
    other = write_loop(tmp_path / "c.dcm", PatientID="somebody else", StudyInstanceUID="1.2.9", SOPInstanceUID="1.2.8")
    copies = []
    pseudonyms = Pseudonyms()
    for source in (first, second, other):
        target = tmp_path / f"copy of {source.name}"
        write_pseudonymised(source, target, pseudonyms)
        copies.append(pydicom.dcmread(target))
    assert len({copy.SOPInstanceUID for copy in copies}) == 3
    assert copies[0].StudyInstanceUID == copies[1].StudyInstanceUID != copies[2].StudyInstanceUID
    assert copies[0].SeriesInstanceUID == copies[1].SeriesInstanceUID
    assert copies[0].PatientID == copies[1].PatientID != copies[2].PatientID
    for copy in copies:
        assert copy.SOPInstanceUID == copy.file_meta.MediaStorageSOPInstanceUID
        assert copy.SOPInstanceUID.is_valid
        assert copy.StudyInstanceUID.startswith("2.25.")
    write_pseudonymised(first, tmp_path / "again.dcm", Pseudonyms(pseudonyms.key))
    assert pydicom.dcmread(tmp_path / "again.dcm").SOPInstanceUID == copies[0].SOPInstanceUID
    write_pseudonymised(first, tmp_path / "new.dcm")
    assert pydicom.dcmread(tmp_path / "new.dcm").PatientID != copies[0].PatientID
    assert pseudonyms.key.hex() not in repr(pseudonyms)


def decoded(path: Path) -> tuple[np.ndarray, str]:
    """The pixels as a decoder gives them, without any conversion of colours."""
    dataset = pydicom.dcmread(path)
    stack, found = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, raw=True)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return stack.reshape(frames, dataset.Rows, dataset.Columns, -1), str(found["photometric_interpretation"])


@pytest.mark.parametrize(
    ("model", "bits"),
    [("MONOCHROME2", 8), ("MONOCHROME2", 12), ("MONOCHROME1", 8), ("RGB", 8), ("YBR_FULL", 8), ("PALETTE COLOR", 8)],
)
def test_the_scan_area_stays_and_the_rest_is_black(model: str, bits: int, tmp_path: Path) -> None:
    source, sector = write_loop(tmp_path / "a.dcm", model, bits), sector_of_loop()
    write_pseudonymised(source, tmp_path / "b.dcm", sector=sector)
    (before, _), (after, after_model) = decoded(source), decoded(tmp_path / "b.dcm")
    assert after_model == model
    np.testing.assert_array_equal(after[:, sector], before[:, sector])
    shown = read_cine(tmp_path / "b.dcm")
    for frame in range(FRAMES):
        assert shown.frame(frame)[~sector].max() == 0
    write_pseudonymised(source, tmp_path / "whole.dcm", whole_picture=True)
    np.testing.assert_array_equal(decoded(tmp_path / "whole.dcm")[0], before)


def test_size_and_time_stay(tmp_path: Path) -> None:
    write_pseudonymised(write_loop(tmp_path / "a.dcm"), tmp_path / "b.dcm")
    before, after = read_cine(tmp_path / "a.dcm"), read_cine(tmp_path / "b.dcm")
    assert after.spacing_mm == before.spacing_mm == (0.3, 0.2)
    np.testing.assert_array_equal(after.frame_times_s, before.frame_times_s)
    np.testing.assert_array_equal(after.sector, before.sector)


@pytest.mark.parametrize("change", ["window", "table", "both tables"])
def test_what_is_shown_stays(change: str, tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTExplanation = [4096, 0, 12], CANARY
    table.LUTData = (4095 * (np.arange(4096) / 4095) ** 0.5).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    other = deepcopy(table)
    other.ModalityLUTType = CANARY
    changes = {
        "window": {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        "table": {"VOILUTSequence": Sequence([table])},
        "both tables": {"VOILUTSequence": Sequence([table]), "ModalityLUTSequence": Sequence([other])},
    }
    plain = read_cine(write_loop(tmp_path / "plain.dcm", bits=12))
    source = write_loop(tmp_path / "a.dcm", bits=12, **changes[change])
    write_pseudonymised(source, tmp_path / "b.dcm")
    assert CANARY.encode() not in (tmp_path / "b.dcm").read_bytes()
    before, after = read_cine(source), read_cine(tmp_path / "b.dcm")
    inside = before.sector
    assert not np.array_equal(before.frame(1)[inside], plain.frame(1)[inside])
    np.testing.assert_array_equal(after.frame(1)[inside], before.frame(1)[inside])


def identifying_values(dataset: pydicom.Dataset) -> set[bytes]:
    """Every text of a file that its header does not share with any other: names, dates, numbers, identifiers, remarks.

    Elements that the copy keeps by design are left out, and what is too short to be told from chance.
    """
    kept = {"Manufacturer", "ManufacturerModelName", "SOPClassUID", "ReferencedSOPClassUID", "MediaStorageSOPClassUID"}
    kept |= {"TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName", "SpecificCharacterSet"}
    values: set[bytes] = set()
    for element in [*dataset.iterall(), *dataset.file_meta]:
        if element.keyword in kept or element.VR not in (
            "PN",
            "LO",
            "SH",
            "ST",
            "LT",
            "UT",
            "UC",
            "DA",
            "TM",
            "DT",
            "UI",
        ):
            continue
        for value in element.value if element.VM > 1 else [element.value]:
            for part in str(value or "").replace("^", "\n").splitlines():
                if len(part.strip()) >= 5:
                    values.add(part.strip().encode())
    return values


def test_real_files_lose_every_identifying_value(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "dicom").iterdir())
    assert len(files) == 9
    checked = 0
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = identifying_values(pydicom.dcmread(file))
        target = tmp_path / "copy.dcm"
        write_pseudonymised(file, target)
        content = target.read_bytes()
        own = {b"Basic Application Confidentiality Profile"}
        assert [value for value in values - own if value in content] == []
        checked += len(values)
        sector = find_sector(read_cine(file))
        np.testing.assert_array_equal(decoded(target)[0][:, sector], decoded(file)[0][:, sector])
        before, after = read_cine(file), read_cine(target)
        assert (len(after), after.spacing_mm) == (len(before), before.spacing_mm)
        assert pydicom.dcmread(target).file_meta.TransferSyntaxUID == RLELossless
    assert checked > 100


def as_compressed(path: Path, syntax: UID, frames: list[bytes], **changes: Any) -> Path:
    """The loop of `write_loop` with its pixels compressed elsewhere, as ``frames`` says."""
    dataset = pydicom.dcmread(write_loop(path))
    dataset.update(changes)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path)
    return path


def test_a_video_is_copied_as_rgb(tmp_path: Path) -> None:
    video = io.BytesIO()
    with av.open(video, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in np.repeat(pixels(False, 8)[..., None], 3, axis=3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    with av.open(io.BytesIO(video.getvalue())) as again:
        reference = np.stack([frame.to_ndarray(format="rgb24") for frame in again.decode(video=0)])
    colours = {"PhotometricInterpretation": "YBR_PARTIAL_420", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    source, sector = as_compressed(tmp_path / "a.dcm", MPEG4HP41, [video.getvalue()], **colours), sector_of_loop()
    write_pseudonymised(source, tmp_path / "b.dcm", sector=sector)
    after, model = decoded(tmp_path / "b.dcm")
    assert (model, len(after)) == ("RGB", FRAMES)
    np.testing.assert_array_equal(after[:, sector], reference[:, sector])
    assert after[:, ~sector].max() == 0


@pytest.mark.parametrize("syntax", [JPEGExtended12Bit, JPEGLosslessSV1], ids=["extended", "lossless"])
def test_a_jpeg_of_12_bits_is_copied(syntax: UID, tmp_path: Path) -> None:
    ramps = [np.fromfunction(lambda y, x, t=t: 20 * (y + x) + t, (HEIGHT, WIDTH)).astype(np.uint16) for t in range(4)]
    encode = imagecodecs.ljpeg_encode if syntax == JPEGLosslessSV1 else imagecodecs.jpeg8_encode
    how = {} if syntax == JPEGLosslessSV1 else {"bitspersample": 12, "level": 98}
    deep = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    frames = [encode(ramp, **how) for ramp in ramps]
    write_pseudonymised(
        as_compressed(tmp_path / "a.dcm", syntax, frames, **deep), tmp_path / "b.dcm", whole_picture=True
    )
    after = decoded(tmp_path / "b.dcm")[0][..., 0].astype(int)
    assert np.abs(after - np.stack(ramps)).max() <= (0 if syntax == JPEGLosslessSV1 else 40)
    np.testing.assert_array_equal(after, np.stack([imagecodecs.jpeg8_decode(frame) for frame in frames]))


def test_gdcm_is_not_needed(tmp_path: Path) -> None:
    """It ends the program at some damaged files."""
    frames = [imagecodecs.ljpeg_encode(frame) for frame in pixels(False, 8)]
    source = as_compressed(tmp_path / "a.dcm", JPEGLosslessSV1, frames)
    code = (
        "from napari_uniultra.io.privacy import write_pseudonymised\n"
        "write_pseudonymised(*sys.argv[1:], whole_picture=True)\n"
    )
    run_without_gdcm(code, source, tmp_path / "b.dcm")
    np.testing.assert_array_equal(decoded(tmp_path / "b.dcm")[0][..., 0], pixels(False, 8))


def test_a_header_that_says_no_more_than_it_must_is_enough(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_loop(tmp_path / "a.dcm"))
    del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(tmp_path / "a.dcm")
    write_pseudonymised(tmp_path / "a.dcm", tmp_path / "b.dcm", whole_picture=True)
    np.testing.assert_array_equal(decoded(tmp_path / "b.dcm")[0][..., 0], pixels(False, 8))


def test_what_has_no_copy_is_told_with_the_reason(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_loop(tmp_path / "a.dcm"))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 32, 32, 31
    dataset.PixelData = pixels(False, 8).astype(np.uint32).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(tmp_path / "wide.dcm")
    packed = as_compressed(tmp_path / "packed.dcm", JPIPHTJ2KReferenced, [bytes(100)] * FRAMES)
    private = write_loop(tmp_path / "private.dcm", SOPClassUID=VALUES["UI"])
    cases = {tmp_path / "wide.dcm": "up to 16 bits", packed: "JPIP HTJ2K", private: "SOP class"}
    for source, words in cases.items():
        with pytest.raises(ReadError, match=words) as caught:
            write_pseudonymised(source, tmp_path / "b.dcm", whole_picture=True)
        assert source.name in caught.value.what
        assert caught.value.fix
        assert "damaged (" not in str(caught.value)


def test_unknown_scan_areas_are_refused(tmp_path: Path) -> None:
    source = write_loop(tmp_path / "a.dcm")
    with pytest.raises(WriteError, match="scan area is not known"):
        write_pseudonymised(source, tmp_path / "b.dcm", sector=np.ones((3, 3), bool))
    dark = pydicom.dcmread(source)
    del dark.SequenceOfUltrasoundRegions
    dark.PixelData = bytes(len(dark.PixelData))
    dark.save_as(source)
    with pytest.raises(WriteError, match="scan area is not known"):
        write_pseudonymised(source, tmp_path / "b.dcm")
    assert not (tmp_path / "b.dcm").exists()


def test_what_cannot_be_copied_is_refused_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ReadError):
        write_pseudonymised(tmp_path / "a.png", tmp_path / "b.dcm")
    source = write_loop(tmp_path / "a.dcm", SOPClassUID=VALUES["UI"])
    with pytest.raises(ReadError, match=r"a\.dcm cannot be copied") as caught:
        write_pseudonymised(source, tmp_path / "b.dcm")
    assert CANARY not in str(caught.value)
    assert VALUES["UI"] not in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="folder cannot be written"):
        write_pseudonymised(write_loop(tmp_path / "a.dcm"), tmp_path / "folder")
