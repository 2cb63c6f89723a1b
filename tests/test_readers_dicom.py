"""DICOM: pixels against GDCM (through SimpleITK), geometry and times against hand-made files, damage refused."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path

import av
import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from no_gdcm import run_without_gdcm
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_windowing, convert_color_space
from pydicom.uid import (
    HTJ2K,
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPIPHTJ2KReferenced,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)
from scipy import ndimage

from napari_uniultra.core.types import Cine
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


def test_tissue_counts_before_colour_flow(tmp_path: Path) -> None:
    flow = region(RegionDataType=2, RegionLocationMaxX1=40, PhysicalDeltaX=0.5)
    cine = read_cine(make_dicom(tmp_path, ramp(2), SequenceOfUltrasoundRegions=[flow, region()]))
    assert cine.spacing_mm == pytest.approx((0.3, 0.2))
    assert "spacing" not in cine.details


def test_scan_areas_of_different_scale_are_told(tmp_path: Path) -> None:
    beside = region(RegionLocationMinX0=0, RegionLocationMaxX1=5, PhysicalDeltaX=0.5)
    cine = read_cine(make_dicom(tmp_path, ramp(2), SequenceOfUltrasoundRegions=[beside, region()]))
    assert cine.spacing_mm == pytest.approx((0.3, 0.2))
    assert "differ in scale" in cine.details["spacing"]


def test_spacing_of_enhanced_objects(tmp_path: Path) -> None:
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = [0.4, 0.1]
    groups.PixelMeasuresSequence = [measures]
    assert read_cine(make_dicom(tmp_path, ramp(2), SharedFunctionalGroupsSequence=[groups])).spacing_mm == (0.4, 0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"RegionLocationMaxX1": 2},  # ends before it begins
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
        ({"FrameTime": -40, "CineRate": 0}, None),
        ({"FrameTime": 1e12}, None),
        ({"FrameTimeVector": [0, -10, 30]}, None),
        ({}, None),
    ],
)
def test_times(elements: dict, times: list[float] | None, tmp_path: Path) -> None:
    cine = read_cine(make_dicom(tmp_path, ramp(3), **elements))
    if times is None:
        assert cine.frame_times_s is None
        assert cine.details.get("frame_times", "").startswith("unknown") == bool(elements)
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
        ({"BitsAllocated": 24, "BitsStored": 24}, "24 bits"),
        ({"BitsStored": 9}, "9 of 8 bits"),
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


def test_compression_that_nothing_decodes_is_named(tmp_path: Path) -> None:
    path = make_compressed(tmp_path, ramp(1), JPIPHTJ2KReferenced, [bytes(100)])
    with pytest.raises(ReadError, match="JPIP HTJ2K"):
        read_cine(path)
    path = make_compressed(tmp_path, ramp(1), MPEG4HP41, [bytes(100)])
    with pytest.raises(ReadError, match=r"made\.dcm cannot be read as a video"):
        read_cine(path)


def make_compressed(folder: Path, pixels: np.ndarray, syntax: str, frames: list[bytes], **elements: object) -> Path:
    """A file of frames that were compressed elsewhere."""
    path = make_dicom(folder, pixels, **elements)
    dataset = pydicom.dcmread(path)
    # pydicom does not write a syntax that it does not know: one whose name is as long lends its place.
    stand_in = {".1.2.8.1": JPEG2000Lossless, ".4.110": HTJ2K, ".4.111": HTJ2K, ".4.112": HTJ2K}
    written = next((uid for end, uid in stand_in.items() if syntax.endswith(end)), UID(syntax))
    dataset.file_meta.TransferSyntaxUID = written
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    path.write_bytes(path.read_bytes().replace(written.encode(), syntax.encode().ljust(len(written), b"\0"), 1))
    return path


LOSSLESS = {
    "1.2.840.10008.1.2.4.57": lambda frame: imagecodecs.ljpeg_encode(frame),  # JPEG lossless
    "1.2.840.10008.1.2.4.70": lambda frame: imagecodecs.ljpeg_encode(frame),
    "1.2.840.10008.1.2.4.80": lambda frame: imagecodecs.jpegls_encode(frame),
    "1.2.840.10008.1.2.4.90": lambda frame: imagecodecs.jpeg2k_encode(frame, codecformat="J2K", level=0),
    "1.2.840.10008.1.2.4.201": lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    "1.2.840.10008.1.2.4.202": lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    "1.2.840.10008.1.2.4.203": lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    "1.2.840.10008.1.2.4.110": lambda frame: imagecodecs.jpegxl_encode(frame, lossless=True),
    "1.2.840.10008.1.2.4.112": lambda frame: imagecodecs.jpegxl_encode(frame, lossless=True),
    "1.2.840.10008.1.2.1.98": lambda frame: frame.tobytes(),
    "1.2.840.10008.1.2.8.1": lambda frame: zlib.compress(frame.tobytes(), wbits=-15),
}


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_codecs(syntax: str, tmp_path: Path) -> None:
    encode = LOSSLESS[syntax]
    pixels = ramp(3)
    path = make_compressed(tmp_path, pixels, syntax, [encode(frame) for frame in pixels])
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), pixels)
    deep = ramp(2, np.uint16) & 4095
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    path = make_compressed(tmp_path, deep, syntax, [encode(frame) for frame in deep], **window)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), np.rint(deep / 4095.0 * 255))


@pytest.mark.parametrize("syntax", [key for key in LOSSLESS if not key.endswith(("57", "70"))])
def test_lossless_colour(syntax: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    model = "RGB"
    if syntax.endswith((".90", ".201", ".202")):
        model = "YBR_RCT"
    path = make_compressed(
        tmp_path, pixels, syntax, [LOSSLESS[syntax](frame) for frame in pixels], PhotometricInterpretation=model
    )
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), pixels)


@pytest.mark.parametrize("model", ["MONOCHROME2", "YBR_FULL_422"])
def test_jpeg_baseline_against_another_decoder(model: str, tmp_path: Path) -> None:
    shape = (2, 32, 48, 3) if model != "MONOCHROME2" else (2, 32, 48)
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), (0, 4, 4, 0)[: len(shape)])
    pixels = np.clip(128 + 600 * smooth, 0, 255).astype(np.uint8)
    frames = [imagecodecs.jpeg8_encode(frame, level=95) for frame in pixels]
    path = make_compressed(tmp_path, pixels, "1.2.840.10008.1.2.4.50", frames, PhotometricInterpretation=model)
    decoded = np.asarray(read_cine(path).frames)
    for frame, reference in zip(decoded, map(imagecodecs.jpeg8_decode, frames), strict=True):
        # Decoders may differ in how they spread halved colours over the pixels.
        assert np.abs(frame.astype(int) - reference).max() <= (0 if model == "MONOCHROME2" else 8)


@pytest.mark.parametrize("claimed", ["rgb", "ycbcr"])
@pytest.mark.parametrize("model", ["RGB", "YBR_FULL"])
def test_lossless_jpeg_of_colours_is_what_the_file_says(model: str, claimed: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    options = {"colorspace": claimed, "outcolorspace": claimed, "subsampling": "444"}
    frames = [imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1, **options) for frame in pixels]
    path = make_compressed(tmp_path, pixels, JPEGLosslessSV1, frames, PhotometricInterpretation=model)
    expected = pixels if model == "RGB" else convert_color_space(pixels, "YBR_FULL", "RGB")
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), expected)
    damaged = bytearray(frames[0])
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path = make_compressed(tmp_path, pixels, JPEGLosslessSV1, [bytes(damaged)] * 2, PhotometricInterpretation=model)
    with contextlib.suppress(ReadError):  # refused or not, this process lives
        read_cine(path)


def test_jpeg_of_12_bits(tmp_path: Path) -> None:
    pixels = (np.indices((30, 40)).sum(axis=0) * 50).astype(np.uint16)[None]
    frames = [imagecodecs.jpeg8_encode(frame, bitspersample=12, level=98) for frame in pixels]
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    path = make_compressed(tmp_path, pixels, JPEGExtended12Bit, frames, **window)
    assert np.abs(read_cine(path).frame(0) - pixels[0] / 4095 * 255).max() < 2


def test_gdcm_is_not_needed(shared_data: Path) -> None:
    """It ends the program at some damaged files."""
    code = (
        "from pathlib import Path; from napari_uniultra.io.readers import read_cine\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.dcm')): read_cine(path).frame(0)\n"
    )
    run_without_gdcm(code, shared_data / "dicom")


def test_jpeg_xl_of_a_jpeg(tmp_path: Path) -> None:
    frame = np.tile(np.arange(64, dtype=np.uint8) * 3, (32, 1))
    jpeg = imagecodecs.jpeg8_encode(frame, level=90)
    path = make_compressed(tmp_path, frame[None], "1.2.840.10008.1.2.4.111", [imagecodecs.jpegxl_encode_jpeg(jpeg)])
    reference = imagecodecs.jpeg8_decode(jpeg).astype(int)
    assert np.abs(read_cine(path).frame(0) - reference).max() <= 2


@pytest.mark.parametrize("has_table", [True, False])
def test_several_fragments_to_a_frame(has_table: bool, tmp_path: Path) -> None:
    pixels = ramp(3)
    frames = [imagecodecs.jpegls_encode(frame) for frame in pixels]
    path = make_compressed(tmp_path, pixels, JPEGLSLossless, frames)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=has_table)
    dataset.save_as(path)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), pixels)


def test_a_frame_that_claims_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = bytearray(imagecodecs.jpeg2k_encode(ramp(1)[0], codecformat="J2K", level=0))
    bomb[8:16] = (60000).to_bytes(4, "big") * 2
    path = make_compressed(tmp_path, ramp(1), JPEG2000Lossless, [bytes(bomb)])
    with pytest.raises(ReadError, match="60000 x 60000 pixels instead of 40 x 30"):
        read_cine(path)


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_video_in_dicom(container: str, tmp_path: Path) -> None:
    video = io.BytesIO()
    with av.open(video, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=25, options={"g": "5", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * index, np.uint8), "rgb24")))
        output.mux(stream.encode())
    with av.open(io.BytesIO(video.getvalue())) as again:
        reference = [frame.to_ndarray(format="rgb24") for frame in again.decode(video=0)]
    blank = np.zeros((12, 48, 64, 3), np.uint8)
    elements = {"PhotometricInterpretation": "YBR_PARTIAL_420", "FrameTime": 40}
    path = make_compressed(tmp_path, blank, MPEG4HP41, [video.getvalue()], **elements)
    cine = read_cine(path)
    np.testing.assert_allclose(cine.frame_times_s, np.arange(12) * 0.04)
    for index in (7, 2, 11):
        np.testing.assert_array_equal(cine.frame(index), reference[index])


def test_deflated_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = ramp(5)
    path = make_dicom(tmp_path, pixels, DeflatedExplicitVRLittleEndian, FrameTime=20)
    cine = read_cine(path)
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)
    assert cine.frame_times_s[-1] == pytest.approx(0.08)
    monkeypatch.setattr("napari_uniultra.io.readers.dicom_header._MAX_INFLATED", 2000)
    with pytest.raises(ReadError, match="inflated"):
        read_cine(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_big_endian(dtype: type, tmp_path: Path) -> None:
    pixels = ramp(2, dtype)
    path = make_dicom(tmp_path, pixels.astype(np.dtype(dtype).newbyteorder(">")))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset["PixelData"].VR = "OB" if dtype is np.uint8 else "OW"
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    expected = pixels if dtype is np.uint8 else Cine(pixels).frames
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), np.asarray(expected))


def test_colour_by_plane(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    path = make_dicom(tmp_path, pixels, PlanarConfiguration=1, PixelData=pixels.transpose(0, 3, 1, 2).tobytes())
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), pixels)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), sitk.GetArrayFromImage(sitk.ReadImage(path)))


@pytest.mark.parametrize("model", ["YBR_FULL", "YBR_FULL_422"])
def test_uncompressed_ybr_against_gdcm(model: str, tmp_path: Path) -> None:
    samples = 3 if model == "YBR_FULL" else 2
    stored = np.random.default_rng(0).integers(60, 190, 2 * 30 * 40 * samples, dtype=np.uint8)
    blank = np.zeros((2, 30, 40, 3), np.uint8)
    path = make_dicom(tmp_path, blank, PhotometricInterpretation=model, PixelData=stored.tobytes())
    reference = sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(int)
    assert np.abs(np.asarray(read_cine(path).frames) - reference).max() <= 1  # rounding


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_float_pixels(keyword: str, dtype: type, tmp_path: Path) -> None:
    values = np.linspace(-3, 5, 2 * 30 * 40).reshape(2, 30, 40).astype(dtype)
    path = make_dicom(tmp_path, ramp(2))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.BitsAllocated = values.itemsize * 8
    setattr(dataset, keyword, values.tobytes())
    dataset.save_as(path)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), np.asarray(Cine(values).frames))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 1, 4, "LINEAR_EXACT"
    dataset.save_as(path)
    shown = np.rint(np.clip((values - 1.0) / 4 + 0.5, 0, 1) * 255)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), shown)


def test_bits_and_32_bit_numbers(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 30, 40), dtype=np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    path = make_dicom(tmp_path, bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), bits * 255)
    wide = ramp(2, np.uint32)
    np.testing.assert_array_equal(np.asarray(read_cine(make_dicom(tmp_path, wide)).frames), Cine(wide).frames)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 500, "WindowWidth": 900},
        {"WindowCenter": [500, 40], "WindowWidth": [900, 80]},  # the first of several
        {"WindowCenter": 500, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 500, "WindowWidth": 900, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 500, "WindowWidth": 1},
        {"WindowCenter": -800, "WindowWidth": 4000, "RescaleSlope": 2, "RescaleIntercept": -3000},
        {"WindowCenter": 500, "WindowWidth": 900, "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 500, "WindowWidth": 900, "PresentationLUTShape": "INVERSE"},
    ],
    ids=str,
)
def test_windows_are_those_of_pydicom(elements: dict, tmp_path: Path) -> None:
    pixels = np.linspace(0, 4095, 2 * 1200).reshape(2, 30, 40).astype(np.uint16)
    path = make_dicom(tmp_path, pixels, BitsStored=12, HighBit=11, **elements)
    dataset = pydicom.dcmread(path)
    values = apply_modality_lut(pixels, dataset)
    # pydicom maps to the range of the stored (or rescaled) values.
    low, high = apply_modality_lut(np.array([0, 4095]), dataset)
    reference = (apply_windowing(values, dataset).astype(float) - low) / (high - low) * 255
    if elements.keys() & {"PhotometricInterpretation", "PresentationLUTShape"}:
        reference = 255 - reference
    assert np.abs(np.asarray(read_cine(path).frames) - reference).max() <= 0.51


@pytest.mark.parametrize("width", [0, -5, float("nan")])
def test_impossible_windows_are_left_alone(width: float, tmp_path: Path) -> None:
    pixels = ramp(2, np.uint16)
    path = make_dicom(tmp_path, pixels)
    plain = np.asarray(read_cine(path).frames)
    path = make_dicom(tmp_path, pixels, WindowCenter=100, WindowWidth=width)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), plain)


def test_look_up_tables(tmp_path: Path) -> None:
    pixels = np.linspace(0, 1023, 2 * 1200).reshape(2, 30, 40).astype(np.uint16)
    curve = (np.linspace(0, 1, 1000) ** 0.5 * 4095).astype(np.uint16)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [1000, 10, 12], curve.tolist()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    expected = np.rint(curve[np.clip(pixels.astype(int) - 10, 0, 999)] / 4095.0 * 255)
    stated = {"BitsStored": 10, "HighBit": 9}
    path = make_dicom(tmp_path, pixels, VOILUTSequence=[table], WindowCenter=3, WindowWidth=4, **stated)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), expected)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    path = make_dicom(tmp_path, pixels, ModalityLUTSequence=[table], **window, **stated)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), expected)
    table.LUTDescriptor = [1000, 10, 0]
    with pytest.raises(ReadError, match="table cannot be used"):
        read_cine(make_dicom(tmp_path, pixels, VOILUTSequence=[table], **stated))


def test_8_bits_are_shown_as_stored(tmp_path: Path) -> None:
    path = make_dicom(tmp_path, ramp(2), WindowCenter=60, WindowWidth=20)
    np.testing.assert_array_equal(np.asarray(read_cine(path).frames), ramp(2))


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
