"""DICOM: pixels against GDCM (through SimpleITK), geometry and times against hand-made files, damage refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import can_read, read_cine

# frames shape, spacing in mm (row, column), seconds per frame
REAL = {
    "JPGLosslessP14SV1_1s_1f_8b.dcm": ((1, 768, 1024), 0.25476696592378157, None),
    "OBXXXX1A_rle_2frame.dcm": ((2, 600, 800, 3), 0.2622878766196998, None),
    "US1_J2KI.dcm": ((1, 480, 640, 3), None, None),
    "YBR_FULL-RLE.dcm": ((1, 480, 640, 3), 0.09536785180637355, None),
    "dcm4che_US-PAL-8-10x-echo_rle.dcm": ((10, 430, 600, 3), None, 0.076),
    "dcm4che_jpeg-ls-Palette_10f.dcm": ((10, 430, 600, 3), None, 0.076),
    "no-pixel-spacing.dcm": ((1, 600, 800, 3), 0.3305420890260027, None),
    # These two state a region larger than their picture: one is cropped, the other was shrunk to a half.
    "pydicom_examples_palette.dcm": ((1, 350, 800, 3), None, None),
    "pydicom_examples_ybr_color_30f.dcm": ((30, 240, 320, 3), None, 0.033333),
}
CANARY = "CANARY^PATIENT"


@pytest.mark.parametrize("name", REAL)
def test_real_file(name: str, shared_data: Path) -> None:
    path = shared_data / "dicom" / name
    cine = read_cine(path)
    shape, spacing, step_s = REAL[name]
    assert cine.frames.shape == shape
    assert cine.frames.dtype == np.uint8
    assert cine.spacing_mm == (None if spacing is None else pytest.approx((spacing, spacing)))
    if step_s is None:
        assert cine.frame_times_s is None
    else:
        np.testing.assert_allclose(cine.frame_times_s, np.arange(shape[0]) * step_s)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))  # GDCM: its own parser, codecs and colour conversion
    np.testing.assert_array_equal(np.asarray(cine.frames), reference)


def test_scan_area_is_the_region(shared_data: Path) -> None:
    sector = read_cine(shared_data / "dicom" / "YBR_FULL-RLE.dcm").sector
    rows, columns = np.flatnonzero(sector.any(axis=1)), np.flatnonzero(sector.any(axis=0))
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (84, 48, 483, 415)


def test_changed_picture_has_no_spacing_and_says_so(shared_data: Path) -> None:
    cine = read_cine(shared_data / "dicom" / "pydicom_examples_ybr_color_30f.dcm")
    assert cine.sector is None
    assert cine.details["spacing"].startswith("unknown")


@pytest.mark.parametrize("cut", [1, 130, 200, 700, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["OBXXXX1A_rle_2frame.dcm", "US1_J2KI.dcm", "pydicom_examples_palette.dcm"])
def test_cut_file_is_refused(name: str, cut: float, shared_data: Path, tmp_path: Path) -> None:
    content = (shared_data / "dicom" / name).read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(content[: cut if cut >= 1 else int(len(content) * cut)])
    with pytest.raises(ReadError, match=r"cut\.dcm"):
        read_cine(path)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_header_opens_or_is_refused(
    seed: int, tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(seed)
    path = make_dicom(tmp_path, ramp(4), SequenceOfUltrasoundRegions=[region()], FrameTime="40")
    content, messages = bytearray(path.read_bytes()), []
    header = len(content) - 4 * 30 * 40
    for _ in range(20):
        for at in rng.integers(0, header, 8):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            cine = read_cine(path)
            assert cine.frame(len(cine) - 1).shape[:2] == cine.shape_hw
        except ReadError as error:
            messages.append(str(error))
    messages += [str(warning.message) for warning in recwarn]
    assert "CANARY" not in caplog.text + "".join(messages)


def ramp(frames: int, dtype: type = np.uint8) -> np.ndarray:
    """(frames, 30, 40), different in every frame, with all values of the type's range in use."""
    top = np.iinfo(dtype).max
    return (np.arange(frames * 1200).reshape(frames, 30, 40) * (top // 251) % (top + 1)).astype(dtype)


def region(**changes: object) -> Dataset:
    item = Dataset()
    values = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionFlags": 0,
        "RegionLocationMinX0": 5,
        "RegionLocationMinY0": 3,
        "RegionLocationMaxX1": 35,
        "RegionLocationMaxY1": 28,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": 0.03,
    }
    for key, value in (values | changes).items():
        setattr(item, key, value)
    return item


def make_dicom(folder: Path, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = CANARY, CANARY, "US"
    dataset.InstitutionName = CANARY
    colour = pixels.ndim == 4
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless)
    for key, value in elements.items():
        setattr(dataset, key, value)
    path = folder / "made.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_spacing_of_both_axes_and_negative_deltas(tmp_path: Path) -> None:
    upwards = region(PhysicalDeltaY=-0.03)
    cine = read_cine(make_dicom(tmp_path, ramp(2), SequenceOfUltrasoundRegions=[upwards]))
    assert cine.spacing_mm == pytest.approx((0.3, 0.2))
    assert cine.sector.sum() == (35 - 5) * (28 - 3)


def test_largest_tissue_region_counts(tmp_path: Path) -> None:
    small = region(RegionLocationMaxX1=9, PhysicalDeltaX=0.5)
    trace = region(RegionSpatialFormat=4, PhysicalUnitsXDirection=4, RegionLocationMaxX1=40)
    cine = read_cine(make_dicom(tmp_path, ramp(2), SequenceOfUltrasoundRegions=[small, trace, region()]))
    assert cine.spacing_mm == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize(
    "changes",
    [
        {"PhysicalUnitsXDirection": 4},  # seconds
        {"PhysicalUnitsYDirection": 0},  # none
        {"PhysicalDeltaX": 0.0},
        {"PhysicalDeltaX": float("nan")},
        {"RegionSpatialFormat": 2},  # M-mode
        {"RegionLocationMaxX1": 60},  # beyond a picture of 40 columns
    ],
)
def test_no_spacing_is_invented(changes: dict, tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(2), SequenceOfUltrasoundRegions=[region(**changes)])
    cine = read_cine(path)
    assert cine.spacing_mm is None
    assert cine.sector is None


def test_pixel_spacing_is_used_without_regions(tmp_path: Path) -> None:
    assert read_cine(make_dicom(tmp_path, ramp(1), PixelSpacing=[0.4, 0.1])).spacing_mm == (0.4, 0.1)
    assert read_cine(make_dicom(tmp_path, ramp(1), PixelSpacing=[0, 0.1])).spacing_mm is None


@pytest.mark.parametrize(
    ("elements", "times"),
    [
        ({"FrameTimeVector": [0, 10, 30], "FrameTime": 7}, [0, 0.010, 0.040]),
        ({"FrameTimeVector": [0, 10], "FrameTime": 50}, [0, 0.05, 0.1]),  # one step too few: it is left alone
        ({"FrameTime": 0, "CineRate": 20}, [0, 0.05, 0.1]),
        ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2]),
        ({}, None),
    ],
)
def test_times(elements: dict, times: list[float] | None, tmp_path: Path) -> None:
    cine = read_cine(make_dicom(tmp_path, ramp(3), **elements))
    if times is None:
        assert cine.frame_times_s is None
    else:
        np.testing.assert_allclose(cine.frame_times_s, times)


def test_a_still_has_no_times(tmp_path: Path) -> None:
    assert read_cine(make_dicom(tmp_path, ramp(1), FrameTime=40)).frame_times_s is None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_pixels_of_one_frame_need_no_other(syntax: str, tmp_path: Path) -> None:
    pixels = ramp(200)
    cine = read_cine(make_dicom(tmp_path, pixels, syntax))
    np.testing.assert_array_equal(cine.frame(150), pixels[150])
    assert set(cine.frames._cache) == {0, 150}  # the first is decoded on opening, to know that it can be


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    pixels = ramp(2)
    cine = read_cine(make_dicom(tmp_path, pixels, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(np.asarray(cine.frames), 255 - pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_16_bits_are_mapped_by_their_range(dtype: type, tmp_path: Path) -> None:
    pixels = (ramp(3).astype(np.int32) * 16 - (1000 if dtype is np.int16 else 0)).astype(dtype)
    cine = read_cine(make_dicom(tmp_path, pixels))
    low, high = int(pixels.min()), int(pixels.max())
    expected = np.rint((pixels.astype(float) - low) * 255 / (high - low))
    np.testing.assert_array_equal(np.asarray(cine.frames), expected)


def test_monochrome1_of_12_bits(tmp_path: Path) -> None:
    pixels = ramp(2).astype(np.uint16) * 16
    cine = read_cine(make_dicom(tmp_path, pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(cine.frame(0), np.rint((4095 - pixels[0].astype(float) - 15) / (4095 - 15) * 255))


def test_rgb(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(read_cine(make_dicom(tmp_path, pixels)).frames), pixels)


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"NumberOfFrames": 900}, "of its picture"),
        ({"Rows": 65535, "Columns": 65535}, "too large"),
        ({"NumberOfFrames": 2_000_000_000}, "too large"),
        ({"Rows": 0}, "no picture"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "32 bits"),
        ({"PhotometricInterpretation": "CMYK"}, "colour model"),
        ({"SamplesPerPixel": 3}, "colour model"),
    ],
)
def test_impossible_descriptions_are_refused(elements: dict, why: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=why):
        read_cine(make_dicom(tmp_path, ramp(2), **elements))


def test_fewer_fragments_than_frames(tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(2), RLELossless, NumberOfFrames=3)
    with pytest.raises(ReadError, match="states 3 frames but holds 2"):
        read_cine(path)


def test_missing_elements_and_other_objects(tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(1))
    for key in ("PixelData", "Rows", "BitsAllocated"):
        dataset = pydicom.dcmread(path)
        del dataset[key]
        dataset.save_as(tmp_path / "less.dcm")
        with pytest.raises(ReadError, match=r"less\.dcm"):
            read_cine(tmp_path / "less.dcm")


def test_unsupported_compression_says_which(tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(1))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    dataset.PixelData = encapsulate([b"\0" * 100])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(ReadError, match="MPEG-4"):
        read_cine(path)


def test_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(1), DeflatedExplicitVRLittleEndian)
    with pytest.raises(ReadError, match="deflated"):
        read_cine(path)


def test_dicom_without_suffix_and_without_preamble(tmp_path: Path) -> None:
    pixels = ramp(2)
    content = make_dicom(tmp_path, pixels).read_bytes()
    (tmp_path / "IM_0001").write_bytes(content)
    (tmp_path / "bare.dcm").write_bytes(content[132:])
    assert can_read(tmp_path / "IM_0001")
    for name in ("IM_0001", "bare.dcm"):
        np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / name).frames), pixels)


def test_no_patient_data_comes_along(tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(2), SequenceOfUltrasoundRegions=[region()])
    cine = read_cine(path)
    assert "CANARY" not in repr(cine)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: content.index(b"\x28\x00\x10\x00") + 4])  # the name is before the cut
    with pytest.raises(ReadError) as caught:
        read_cine(path)
    assert "CANARY" not in repr(caught.value) + str(caught.value)
