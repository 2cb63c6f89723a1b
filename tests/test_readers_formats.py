"""Zarr, NumPy, NIfTI, MetaImage and NRRD against the libraries that define them; turned pictures; very long loops."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from PIL import Image, ImageOps
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import can_read, read_cine
from napari_uniultra.io.readers import raw as raw_module


def loop(frames: int = 12, dtype: type = np.uint8) -> np.ndarray:
    """(frames, 36, 50), different in every frame."""
    return (np.arange(frames * 1800).reshape(frames, 36, 50) % 253).astype(dtype)


# Zarr ---------------------------------------------------------------------------------------------------------------


def make_ome(folder: Path, pixels: np.ndarray, version: str, axes: str, scale: list[float], units: dict) -> Path:
    path = folder / f"loop{version}.ome.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for level in range(2):
        chunks = (min(4, pixels.shape[0]), *pixels.shape[1:])
        array = group.create_array(str(level), shape=pixels.shape, chunks=chunks, dtype=pixels.dtype)
        array[:] = pixels if level == 0 else 0
    kinds = {"t": "time", "c": "channel"}
    image = {
        "version": version,
        "axes": [{"name": a, "type": kinds.get(a, "space")} | ({"unit": units[a]} if a in units else {}) for a in axes],
        "datasets": [
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]} for level in range(2)
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0 if a == "t" else 1.0 for a in axes]}],
    }
    group.attrs.update(
        {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
    )
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(version: str, tmp_path: Path) -> None:
    pixels = loop()
    units = {"t": "millisecond", "y": "micrometer", "x": "millimeter"}
    path = make_ome(tmp_path, pixels, version, "tyx", [20.0, 400.0, 0.2], units)
    assert can_read(path)
    cine = read_cine(path)
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))
    np.testing.assert_allclose(cine.frame_times_s, np.arange(12) * 0.04)
    np.testing.assert_array_equal(cine.frame(7), pixels[7])
    assert set(cine.frames._cache) == {0, 1, 2, 3, 4, 5, 6, 7}, "whole chunks, and no other"
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)


def test_ome_zarr_with_further_axes(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 3, 1, 36, 50), dtype=np.uint8)
    path = make_ome(tmp_path, colour, "0.4", "tczyx", [0.1, 1, 1, 0.4, 0.2], {"t": "second", "y": "mm", "x": "mm"})
    cine = read_cine(path)
    np.testing.assert_array_equal(np.asarray(cine.frames), colour[:, :, 0].transpose(0, 2, 3, 1))
    assert cine.frame_times_s[1] == pytest.approx(0.2)
    path = make_ome(tmp_path, loop()[None], "0.5", "tzyx", [1, 1, 1, 1], {})
    cine = read_cine(path)
    assert (len(cine), cine.spacing_mm, cine.frame_times_s) == (12, None, None)
    with pytest.raises(ReadError, match="not one ultrasound loop"):
        read_cine(make_ome(tmp_path, np.zeros((2, 5, 36, 50), np.uint8), "0.4", "tcyx", [1, 1, 1, 1], {}))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr(zarr_format: int, tmp_path: Path) -> None:
    pixels = loop(dtype=np.uint16)
    path = tmp_path / "plain.zarr"
    array = zarr.create_array(
        str(path), shape=pixels.shape, chunks=(1, 20, 20), dtype="uint16", zarr_format=zarr_format
    )
    array[:] = pixels
    cine = read_cine(path)
    np.testing.assert_array_equal(cine.frames[3], np.rint(pixels[3] * (255 / pixels.max())))


def test_damaged_zarr(tmp_path: Path) -> None:
    path = make_ome(tmp_path, loop(), "0.4", "tyx", [1, 1, 1], {})
    attributes = path / ".zattrs"
    good = attributes.read_text()
    for bad in ("{", "[]", good.replace('"0"', '"../../secret"'), good.replace('"0"', '"9"')):
        attributes.write_text(bad)
        with pytest.raises(ReadError, match=r"loop0\.4\.ome\.zarr"):
            read_cine(path)
    attributes.write_text(good)
    metadata = path / "0" / ".zarray"
    array = json.loads(metadata.read_text())
    for change in ({"shape": [10**9, 36, 50]}, {"chunks": [12, 10**6, 10**6]}, {"shape": [12, 10**6, 10**6]}):
        metadata.write_text(json.dumps(array | change))
        with pytest.raises(ReadError):
            read_cine(path)
    metadata.write_text(json.dumps(array))
    chunk = next(file for file in (path / "0").rglob("*") if file.name[0] != "." and file.is_file())
    chunk.write_bytes(b"rubbish")
    with pytest.raises(ReadError, match="damaged"):
        np.asarray(read_cine(path).frames)


# NumPy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(12, 36, 50), (4, 36, 50, 3), (36, 50)])
def test_npy(shape: tuple[int, ...], order: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "loop.npy", np.asarray(pixels, order=order))
    (tmp_path / "loop.json").write_text('{"spacing_mm": [0.4, 0.2], "fps": 50}')
    cine = read_cine(tmp_path / "loop.npy")
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels if len(shape) > 2 else pixels[None])
    assert cine.spacing_mm == (0.4, 0.2)


def test_npz_with_what_belongs_to_it(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "loop.npz", frames=loop(), spacing_mm=[0.4, 0.2], fps=50)
    cine = read_cine(tmp_path / "loop.npz")
    np.testing.assert_array_equal(np.asarray(cine.frames), loop())
    assert cine.spacing_mm == (0.4, 0.2)
    np.testing.assert_allclose(cine.frame_times_s, np.arange(12) / 50)
    np.savez(tmp_path / "one.npz", anything=loop(), frame_times_s=np.arange(12.0))
    assert read_cine(tmp_path / "one.npz").frame_times_s[-1] == 11


def test_numpy_files_that_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "code.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "code.npz", frames=np.array([[{"a": 1}]], dtype=object))
    np.savez(tmp_path / "two.npz", a=loop(), b=loop())
    np.savez(tmp_path / "none.npz", a=np.zeros(3))
    np.save(tmp_path / "complex.npy", loop().astype(complex))
    np.save(tmp_path / "volume.npy", np.zeros((2, 3, 4, 5, 6), np.uint8))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ReadError):
            read_cine(path)


# MetaImage, NRRD, NIfTI ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_all_kinds_against_itk(name: str, dtype: type, packed: bool, tmp_path: Path) -> None:
    pixels = loop(5, dtype)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.2, 0.4, 1.0))
    sitk.WriteImage(image, str(tmp_path / name), packed)
    cine = read_cine(tmp_path / name)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    stored = getattr(cine.frames, "_frames", cine.frames)
    np.testing.assert_array_equal(np.asarray(stored), reference)
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_colour_stacks_against_itk(name: str, tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 36, 50, 3), dtype=np.uint8)
    image = sitk.GetImageFromArray(colour, isVector=True)
    image.SetSpacing((0.2, 0.4, 1.0))
    sitk.WriteImage(image, str(tmp_path / name))
    cine = read_cine(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(cine.frames), colour)
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_nifti_against_nibabel(name: str, slope: float, tmp_path: Path) -> None:
    pixels = loop(5, np.int16)
    image = nibabel.Nifti1Image(pixels.transpose(2, 1, 0), np.diag([0.2, 0.4, 1, 1]))
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, 0)
    nibabel.save(image, tmp_path / name)
    cine = read_cine(tmp_path / name)
    stored = np.asarray(cine.frames._frames)
    np.testing.assert_allclose(stored, np.asarray(nibabel.load(tmp_path / name).dataobj).transpose(2, 1, 0))
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))


def test_nrrd_units(tmp_path: Path) -> None:
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 50 36 2\nencoding: raw\n{}\n\n"
    cases = {
        "spacings: 0.02 0.04 nan\nspace units: \"cm\" \"cm\" \"\"": (0.4, 0.2),
        "space: left-posterior-superior\nspace directions: (0,0.2,0) (0,0,0.4) none": (0.4, 0.2),
        "spacings: nan nan nan": None,
        "spacings: 1 2 3\nspace units: \"parsec\" \"parsec\" \"\"": None,
    }  # fmt: skip
    for words, spacing in cases.items():
        (tmp_path / "a.nrrd").write_bytes(head.format(words).encode() + loop(2).tobytes())
        cine = read_cine(tmp_path / "a.nrrd")
        assert cine.spacing_mm == (None if spacing is None else pytest.approx(spacing)), words
        np.testing.assert_array_equal(np.asarray(cine.frames), loop(2))


SLICER = """NRRD0004
type: uint8
dimension: 4
space: right-anterior-superior
sizes: {frames} 4 3 1
space directions: none (0.2,0,0) (0,-0.4,0) (0,0,1)
kinds: list domain domain domain
labels: "time" "" "" ""
units: "s" "" "" ""
endian: little
encoding: {encoding}
space origin: (0,0,0)
axis 0 index type:=numeric
axis 0 index values:=0 0.04

"""


def frames_first(frames: int) -> tuple[np.ndarray, bytes]:
    """Frames (T, 3, 4) whose values are 100 t + 10 row + column, and the bytes of a file where time is fastest."""
    pixels = np.fromfunction(lambda t, y, x: (100 * t + 10 * y + x) % 256, (frames, 3, 4)).astype(np.uint8)
    return pixels, bytes(pixels[t, y, x] for y in range(3) for x in range(4) for t in range(frames))


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("frames", [1, 3, 4, 7])
def test_sequence_of_slicer_with_frames_first(frames: int, encoding: str, tmp_path: Path) -> None:
    pixels, data = frames_first(frames)
    data = gzip.compress(data) if encoding == "gzip" else data
    path = tmp_path / "a.seq.nrrd"
    path.write_bytes(SLICER.format(frames=frames, encoding=encoding).encode() + data)
    cine = read_cine(path)
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)
    np.testing.assert_array_equal(cine.frame(frames - 1), pixels[-1])
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))
    path.write_bytes(path.read_bytes()[: 6 - len(data)])
    with pytest.raises(ReadError, match="cut off"):
        read_cine(path)


@pytest.mark.parametrize(
    ("axis", "words", "times"),
    [
        (0, 'units: "s" "" "" ""\naxis 0 index values:=2 2.04 2.1', [0, 0.04, 0.1]),
        (3, 'units: "" "" "" "ms"\naxis 3 index values:=0 40 100', [0, 0.04, 0.1]),
        (3, 'units: "mm" "mm" "mm" "s"\nspacings: 1 1 1 0.04', [0, 0.04, 0.08]),
        (0, 'units: "" "" "" ""\naxis 0 index values:=0 1 2', None),  # it does not say of what
        (0, 'units: "mm" "" "" ""\naxis 0 index values:=0 1 2', None),
        (0, 'units: "s" "" "" ""\naxis 0 index values:=0 1', None),  # one is missing
        (0, 'units: "s" "" "" ""\naxis 0 index values:=0 1 later', None),
        (0, 'units: "s" "" "" ""\naxis 0 index values:=0 2 1', None),
        (0, 'units: "s" "" "" ""\nspacings: nan 1 1 1', None),
        (3, "axis 3 index values:=0 1 2", None),
    ],
)
def test_times_of_an_nrrd_are_read_where_it_says_that_they_are_times(
    axis: int, words: str, times: list[float] | None, tmp_path: Path
) -> None:
    first = axis == 0
    sizes, kinds = ("3 4 3 1", "list domain domain domain") if first else ("4 3 1 3", "domain domain domain list")
    head = f"NRRD0004\ntype: uint8\ndimension: 4\nsizes: {sizes}\nkinds: {kinds}\nencoding: raw\n{words}\n\n"
    (tmp_path / "a.seq.nrrd").write_bytes(head.encode() + bytes(36))
    found = read_cine(tmp_path / "a.seq.nrrd").frame_times_s
    assert (found is None) == (times is None)
    assert times is None or found == pytest.approx(times)


@pytest.mark.parametrize(
    ("kinds", "sizes", "words", "spacing"),
    [
        ("list domain domain", "5 4 3", "spacings: nan 0.2 0.4", (0.4, 0.2)),
        ("time space space space", "5 4 3 1", 'spacings: 0.04 0.2 0.4 1\nunits: "s" "cm" "cm" "cm"', (4, 2)),
        ("time space space", "5 4 3", "space directions: (0,0,0.04) (0.2,0,0) (0,0.4,0)", (0.4, 0.2)),
        ("domain domain domain list", "4 3 1 5", 'spacings: 0.2 0.4 1 nan\nunits: "" "" "" "s"', (0.4, 0.2)),
    ],
)
def test_nrrd_kinds_say_which_axis_is_the_loop(
    kinds: str, sizes: str, words: str, spacing: tuple[float, float], tmp_path: Path
) -> None:
    pixels, data = frames_first(5)
    head = f"NRRD0004\ntype: uint8\ndimension: 4\nsizes: {sizes}\nkinds: {kinds}\nencoding: raw\n{words}\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + (data if sizes.startswith("5") else pixels.tobytes()))
    cine = read_cine(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)
    assert cine.spacing_mm == pytest.approx(spacing)


@pytest.mark.parametrize("kinds", ["vector domain domain", "RGB-color domain domain", "list ??? ???"])
def test_nrrd_kinds_of_colours(kinds: str, tmp_path: Path) -> None:
    colours = np.arange(180, dtype=np.uint8).reshape(6, 10, 3)
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 10 6\nkinds: {kinds}\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + colours.tobytes())
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "a.nrrd").frames), colours[None])


def test_nrrd_axes_that_are_no_loop_are_refused(tmp_path: Path) -> None:
    head = "NRRD0004\ntype: uint8\ndimension: {}\nsizes: {}\nkinds: {}\nencoding: {}\n\n"
    cases = {
        (4, "3 4 3 2", "list domain domain domain", "raw"): "not one ultrasound loop",
        (4, "3 4 3 1", "list domain domain domain", "bzip2"): "frames come first",
        (3, "2 4 9", "vector domain domain", "raw"): "not an ultrasound loop",
    }
    for case, words in cases.items():
        (tmp_path / "a.nrrd").write_bytes(head.format(*case).encode() + bytes(72))
        with pytest.raises(ReadError, match=words):
            read_cine(tmp_path / "a.nrrd")


def plus_header(frames: int, shape_hw: tuple[int, int], **fields: str) -> bytes:
    """As PLUS writes the header of a tracked ultrasound sequence."""
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += [
        f"DimSize = {shape_hw[1]} {shape_hw[0]} {frames}",
        "ElementSpacing = 0.2 0.4 1",
        "ElementType = MET_UCHAR",
    ]
    lines += ["UltrasoundImageOrientation = MFA", "UltrasoundImageType = BRIGHTNESS", "Kinds = domain domain list"]
    lines += [f"{key} = {value}" for key, value in fields.items()]
    for index in range(frames):
        frame = f"Seq_Frame{index:04}"
        lines += [
            f"{frame}_Timestamp = {5 + 0.04 * index:.6f}",
            f"{frame}_ImageStatus = {'INVALID' if index == 2 else 'OK'}",
            f"{frame}_ProbeToTrackerTransform =1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        ]
    return "\n".join([*lines, "ElementDataFile = LOCAL\n"]).encode()


@pytest.mark.parametrize("packed", [False, True])
def test_sequence_of_plus(packed: bool, tmp_path: Path) -> None:
    import zlib

    pixels = loop()
    data = zlib.compress(pixels.tobytes()) if packed else pixels.tobytes()
    fields = {"CompressedData": "True", "CompressedDataSize": str(len(data))} if packed else {}
    (tmp_path / "a.igs.mha").write_bytes(plus_header(12, (36, 50), **fields) + data)
    cine = read_cine(tmp_path / "a.igs.mha")
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)
    np.testing.assert_allclose(cine.frame_times_s, np.arange(12) * 0.04, atol=1e-9)
    assert cine.spacing_mm == (0.4, 0.2)
    assert cine.details["orientation"] == "MFA"
    assert cine.details["frames"].startswith("1 ")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_large_deflated_stack_is_inflated_where_it_is_looked_at(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 110), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path), True)
    monkeypatch.setattr(raw_module, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(raw_module, "_READ_BYTES", 5000)
    monkeypatch.setattr(raw_module, "_MARK_BYTES", 40_000)
    cine = read_cine(path)
    cine.frames._cache_frames = 1
    for index in (59, 3, 40, 41, 0, 58):
        np.testing.assert_array_equal(cine.frame(index), pixels[index])
    assert len(cine.frames._marks) > 5
    cine.frame(10)
    assert cine.frames._last[1] == cine.frames._skip + 11 * 90 * 110, "the next frame is read on from there"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ReadError, match="cut off"):
        read_cine(path).frame(59)


@pytest.mark.parametrize("reference", ["../secret.raw", "/etc/passwd", "link.raw", "LIST", "f%03d.raw", "absent.raw"])
def test_a_header_does_not_lead_out_of_its_folder(reference: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(loop(2).tobytes())
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / "a.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = 50 36 2\nElementType = MET_UCHAR\nElementDataFile = {reference}\n"
    )
    (folder / "a.nhdr").write_text(
        f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 50 36 2\nencoding: raw\ndata file: {reference}\n"
    )
    for name in ("a.mhd", "a.nhdr"):
        with pytest.raises(ReadError, match=name):
            read_cine(folder / name)


def test_an_ome_tiff_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "secret.tif", loop(2))
    folder = tmp_path / "study"
    folder.mkdir()
    tifffile.imwrite(folder / "a.ome.tif", loop(1), ome=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(folder / "a.ome.tif") as file:
        xml = file.ome_metadata
    place = '<TiffData FirstT="0" IFD="0"><UUID FileName="../secret.tif">urn:uuid:0</UUID></TiffData>'
    xml = xml[: xml.index("<TiffData")] + place + xml[xml.index("</Pixels>") :]
    tifffile.imwrite(folder / "b.ome.tif", loop(1), description=xml, metadata=None)
    np.testing.assert_array_equal(np.asarray(read_cine(folder / "b.ome.tif").frames), loop(1))  # its own page


# Pictures and videos ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_was_held(orientation: int, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 50, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index in range(2):
        picture.save(tmp_path / f"{index}.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "0.jpg") as reference:
        upright = np.asarray(ImageOps.exif_transpose(reference))
    cine = read_cine(tmp_path)
    assert cine.shape_hw == upright.shape[:2]
    np.testing.assert_array_equal(cine.frame(1), upright)


def test_folder_of_tiff_pictures_and_of_webp(tmp_path: Path) -> None:
    for name in ("tif", "webp"):
        (tmp_path / name).mkdir()
        for index, frame in enumerate(loop(3)):
            Image.fromarray(frame).save(tmp_path / name / f"{index}.{name}", lossless=True)
        np.testing.assert_array_equal(
            np.asarray(read_cine(tmp_path / name).frames).reshape(3, 36, 50, -1)[..., 0], loop(3)
        )
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    tifffile.imwrite(stacks / "a.tif", loop())
    assert not can_read(stacks), "each is a loop of its own"


def make_video(path: Path, codec: str, frames: int = 30) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            picture = np.full((48, 64, 3), 8 * index, np.uint8)
            picture[10:20, index : index + 10] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(("name", "codec"), [("a.wmv", "wmv2"), ("a.mpg", "mpeg2video"), ("a.mkv", "libx264")])
def test_further_containers(name: str, codec: str, tmp_path: Path) -> None:
    make_video(tmp_path / name, codec)
    with av.open(str(tmp_path / name)) as container:
        reference = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    cine = read_cine(tmp_path / name)
    assert len(cine) == 30
    np.testing.assert_allclose(np.diff(cine.frame_times_s), 1 / 25, atol=2e-3)
    cine.frames._cache_frames = 2
    for index in (29, 0, 14, 13, 28):
        np.testing.assert_array_equal(cine.frame(index), reference[index])


def test_video_with_a_broken_last_frame(tmp_path: Path, make_napari_viewer: Callable[..., Any]) -> None:
    path = tmp_path / "broken.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    last = content.rindex(b"\xff\xd8\xff")
    size = int.from_bytes(content[last - 4 : last], "little")
    content[last : last + size] = bytes(size)
    path.write_bytes(content)
    cine = read_cine(path)
    assert cine.frame(8).max() > 0
    with pytest.raises(ReadError, match=r"broken\.avi"):
        cine.frame(9)
    np.testing.assert_array_equal(cine.frame(8), read_cine(path).frame(8))  # the others are still there
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(path), plugin="napari-uniultra")
    with pytest.raises(ReadError, match=r"broken\.avi"):
        viewer.dims.set_point(0, 9)
    viewer.dims.set_point(0, 8)
    assert layer.visible
    assert viewer.dims.current_step[0] == 8


# A real speed -------------------------------------------------------------------------------------------------------


def test_napari_plays_at_the_real_speed(make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    metadata = {"axes": "TYX", "unit": "mm", "finterval": 0.02}
    tifffile.imwrite(tmp_path / "fast.tif", loop(), imagej=True, resolution=(5, 2.5), metadata=metadata)
    (layer,) = viewer.open(str(tmp_path / "fast.tif"), plugin="napari-uniultra")
    sliders = viewer.window._qt_viewer.dims.slider_widgets
    qtbot.waitUntil(lambda: sliders[0].fps == pytest.approx(50), timeout=5000)
    assert layer.scale == pytest.approx((1, 0.4, 0.2))
    other = make_napari_viewer()
    other.add_image(loop())
    assert other.window._qt_viewer.dims.slider_widgets[0].fps == 10, "a speed is that of one viewer"
    np.save(tmp_path / "unknown.npy", loop())
    viewer.layers.clear()
    viewer.open(str(tmp_path / "unknown.npy"), plugin="napari-uniultra")
    qtbot.wait(50)


# Very long loops ----------------------------------------------------------------------------------------------------

FRAMES, HEIGHT, WIDTH = 10_000, 480, 640
OPEN = """
import json, resource, sys, time
from pathlib import Path
from napari_uniultra.io.readers import read_cine
start = time.perf_counter()
cine = read_cine(Path(sys.argv[1]))
took = time.perf_counter() - start
first, last = cine.frame(0), cine.frame(len(cine) - 1)
status = Path("/proc/self/status")
if status.is_file():  # Linux counts what the parent process had, too, in ru_maxrss
    peak = 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(cine), took, peak, list(cine.shape_hw), cine.frame_times_s is not None]))
"""


def long_dicom(path: Path, packed: bool) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if packed else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns, dataset.FrameTime = FRAMES, HEIGHT, WIDTH, 20
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = b""
    if packed:
        dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(np.zeros((HEIGHT, WIDTH), np.uint8))] * FRAMES)
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=False, implicit_vr=False, little_endian=True)
    if not packed:
        head = path.read_bytes()[:-4]
        with path.open("wb") as file:  # a hole in the file: 3 GB that take no room
            file.write(head + (FRAMES * HEIGHT * WIDTH).to_bytes(4, "little"))
            file.truncate(len(head) + 4 + FRAMES * HEIGHT * WIDTH)


def long_plus(path: Path) -> None:
    header = plus_header(FRAMES, (HEIGHT, WIDTH))
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + FRAMES * HEIGHT * WIDTH)


def long_zarr(path: Path) -> None:
    zarr.create_array(str(path), shape=(FRAMES, HEIGHT, WIDTH), chunks=(1, HEIGHT, WIDTH), dtype="uint8")


LONG: dict[str, Callable[[Path], None]] = {
    "raw.dcm": lambda path: long_dicom(path, packed=False),
    "jpeg.dcm": lambda path: long_dicom(path, packed=True),
    "plus.igs.mha": long_plus,
    "loop.zarr": long_zarr,
}


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured as on POSIX, and files have no holes")
@pytest.mark.parametrize("name", LONG)
def test_ten_thousand_frames_open_at_once_and_in_little_memory(name: str, tmp_path: Path) -> None:
    LONG[name](tmp_path / name)
    command = [sys.executable, "-c", OPEN, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    frames, took, peak, shape_hw, has_times = json.loads(done.stdout)
    assert (frames, shape_hw) == (FRAMES, [HEIGHT, WIDTH])
    assert has_times == (name != "loop.zarr")
    assert took < 2, "imports of the format's libraries included"
    assert peak < 500 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="files have no holes")
def test_ten_thousand_frames_in_napari(make_napari_viewer: Callable[..., Any], tmp_path: Path) -> None:
    long_dicom(tmp_path / "raw.dcm", packed=False)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(tmp_path / "raw.dcm"), plugin="napari-uniultra")
    viewer.dims.set_point(0, FRAMES - 1)
    assert len(layer.data._cache) < 10


def test_gzip_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ReadError, match=r"a\.nii\.gz"):
        read_cine(tmp_path / "a.nii.gz")
    for shape in [(1, 1), (1, 1, 1)]:
        np.save(tmp_path / "dot.npy", np.full(shape, 7, np.uint8))
        assert read_cine(tmp_path / "dot.npy").frame(0).tolist() == [[7]]
