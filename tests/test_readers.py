"""Videos, stacks, images and folders: exact frames, scale, times, and clear refusals."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError
from napari_uniultra.io.readers import SUFFIXES, can_read, read_cine
from napari_uniultra.io.readers.lazy import LazyFrames
from napari_uniultra.sample_data import heart_path


def loop(frames: int = 12, dtype: type = np.uint8) -> np.ndarray:
    """(frames, 36, 50), different in every frame."""
    return (np.arange(frames * 1800).reshape(frames, 36, 50) % 253).astype(dtype)


def make_video(path: Path, codec: str, options: dict[str, str], pix_fmt: str, frames: int = 40) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for index in range(frames):
            picture = np.full((48, 64, 3), 6 * index, np.uint8)
            picture[10:20, index : index + 10] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def decode_in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


VIDEOS = {
    "b-frames.mp4": ("libx264", {"g": "10", "bf": "3"}, "yuv420p"),
    "open-gop.mp4": ("libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}, "yuv420p"),
    "one-key-frame.mp4": ("libx264", {"g": "250", "bf": "0"}, "yuv420p"),
    "mpeg4.mov": ("mpeg4", {"g": "9", "bf": "2"}, "yuv420p"),
    "mjpeg.avi": ("mjpeg", {}, "yuvj420p"),
    "mpeg4.avi": ("mpeg4", {"g": "9", "bf": "2"}, "yuv420p"),
    "h264.avi": ("libx264", {"g": "10", "bf": "3"}, "yuv420p"),
    "raw.avi": ("rawvideo", {}, "bgr24"),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_any_frame_of_a_video_in_any_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make_video(path, *VIDEOS[name])
    reference = decode_in_order(path)
    cine = read_cine(path)
    assert cine.frames.shape == (40, 48, 64, 3)
    np.testing.assert_allclose(cine.frame_times_s, np.arange(40) / 25, atol=1e-6)
    cine.frames._cache_frames = 3  # nearly every access must find its frame in the file
    shuffled = np.random.default_rng(0).permutation(40)
    for index in (*range(40), *reversed(range(40)), *shuffled):
        np.testing.assert_array_equal(cine.frame(int(index)), reference[index])


def test_real_videos(shared_data: Path) -> None:
    cine = read_cine(shared_data / "cine" / "liver_imfusion" / "video.mp4")
    meta = json.loads((shared_data / "cine" / "liver_imfusion" / "meta.json").read_text())
    assert cine.frames.shape == (140, 593, 739, 3)
    assert cine.spacing_mm == tuple(meta["spacing_mm"])
    np.testing.assert_array_equal(cine.frame_times_s, meta["timestamps_s"])
    muscle = read_cine(shared_data / "cine" / "muscle_p6_isokinetic210_01_push_01" / "video.mp4")
    reference = decode_in_order(Path(muscle.source))
    assert len(muscle) == len(reference)
    np.testing.assert_allclose(muscle.frame_times_s, np.arange(len(reference)) / 61, atol=1e-9)
    for index in (91, 3, 50):
        np.testing.assert_array_equal(muscle.frame(index), reference[index])


def test_going_backwards_through_a_video_decodes_it_once(tmp_path: Path) -> None:
    make_video(tmp_path / "loop.mp4", *VIDEOS["one-key-frame.mp4"])
    cine = read_cine(tmp_path / "loop.mp4")
    cine.frame(39)
    assert len(cine.frames._cache) == 40


def test_video_times_are_its_own(tmp_path: Path) -> None:
    shown = np.array([0, 10, 11, 50, 90])
    with av.open(str(tmp_path / "uneven.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=100)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stamp in shown:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), stamp, np.uint8), format="rgb24")
            frame.pts = int(stamp)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(read_cine(tmp_path / "uneven.mp4").frame_times_s, shown / 100, atol=1e-6)


def test_a_video_is_turned_as_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    make_video(path, *VIDEOS["b-frames.mp4"])
    upright = decode_in_order(path)[7]
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # after version, times, track, duration, layer and volume
    quarter_turn = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # as phones write it: shown turned to the right
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter_turn)
    path.write_bytes(content)
    cine = read_cine(path)
    assert cine.shape_hw == (64, 48)
    np.testing.assert_array_equal(cine.frame(7), np.rot90(upright, -1))


def save_all(folder: Path) -> dict[str, np.ndarray]:
    """One small loop in every format but DICOM, by file name."""
    pixels = loop()
    tifffile.imwrite(folder / "plain.tif", pixels)
    tifffile.imwrite(folder / "zlib.tif", pixels, compression="zlib")
    tifffile.imwrite(folder / "big.tif", pixels, bigtiff=True)
    tifffile.imwrite(folder / "imagej.tif", pixels, imagej=True)
    image = sitk.GetImageFromArray(pixels)
    for name, compressed in [("a.nrrd", True), ("b.nrrd", False), ("a.mha", False), ("b.mha", True), ("a.nii", False)]:
        sitk.WriteImage(image, str(folder / name), compressed)
    sitk.WriteImage(image, str(folder / "a.nii.gz"))
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(pixels[0]).save(folder / "a.bmp")
    names = [path.name for path in folder.iterdir()]
    return {name: pixels[:1] if name in ("a.png", "a.bmp") else pixels for name in names}


def test_stacks_and_stills_are_read_exactly(tmp_path: Path) -> None:
    for name, pixels in save_all(tmp_path).items():
        cine = read_cine(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(cine.frames), pixels, err_msg=name)
        assert cine.frame_times_s is None, name
        if not name.endswith((".nrrd", ".mha", ".nii", ".nii.gz")):  # ITK itself writes a spacing of 1 mm
            assert cine.spacing_mm is None, name


def test_a_cut_file_is_refused_or_whole(tmp_path: Path) -> None:
    originals = save_all(tmp_path)
    for name in ("b-frames.mp4", "mpeg4.mov", "mjpeg.avi", "mpeg4.avi"):
        make_video(tmp_path / name, *VIDEOS[name])
        originals[name] = np.stack(decode_in_order(tmp_path / name))
    (tmp_path / "cut").mkdir()
    refused = 0
    for name, pixels in originals.items():
        content = (tmp_path / name).read_bytes()
        for part in (0.0, 0.001, 0.1, 0.3, 0.6, 0.9, 0.99):
            path = tmp_path / "cut" / name
            path.write_bytes(content[: int(len(content) * part)])
            try:
                # What still opens must have lost its trailer only.
                np.testing.assert_array_equal(np.asarray(read_cine(path).frames), pixels, err_msg=f"{name} {part}")
            except ReadError as error:
                refused += name in error.what
    assert refused > 6 * len(originals)


@pytest.mark.parametrize("name", ["x.dcm", "x.mp4", "x.tif", "x.nrrd", "x.png", "x.nii.gz", "x.xyz", "x"])
def test_rubbish_empty_and_missing_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ReadError, match="does not exist"):
        read_cine(path)
    path.write_bytes(b"")
    with pytest.raises(ReadError, match="is empty"):
        read_cine(path)
    path.write_bytes(b"no picture at all " * 40)
    with pytest.raises(ReadError) as caught:
        read_cine(path)
    assert name in caught.value.what
    assert str(tmp_path) not in str(caught.value)  # folders are often named after patients


def test_content_outranks_the_suffix(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", loop())
    (tmp_path / "a.tif").rename(tmp_path / "a.mp4")
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "a.mp4").frames), loop())


def test_can_read(tmp_path: Path) -> None:
    assert can_read("a.DCM")
    assert can_read("loop.nii.gz")
    assert not can_read("notes.txt")
    assert not can_read(tmp_path)
    Image.fromarray(loop()[0]).save(tmp_path / "a.png")
    assert can_read(tmp_path)
    assert not can_read("a\0b")
    assert ".dcm" in SUFFIXES


def test_imagej_scale_and_interval(tmp_path: Path) -> None:
    metadata = {"axes": "TYX", "unit": "cm", "finterval": 0.04}
    tifffile.imwrite(tmp_path / "a.tif", loop(), imagej=True, resolution=(50, 25), metadata=metadata)
    cine = read_cine(tmp_path / "a.tif")
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))
    np.testing.assert_allclose(cine.frame_times_s, np.arange(12) * 0.04)


def test_ome_scale_and_interval(tmp_path: Path) -> None:
    metadata = {
        "axes": "TYX",
        "PhysicalSizeX": 200.0,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.4,
        "PhysicalSizeYUnit": "mm",
        "TimeIncrement": 40.0,
        "TimeIncrementUnit": "ms",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", loop(), ome=True, metadata=metadata)
    cine = read_cine(tmp_path / "a.ome.tif")
    assert cine.spacing_mm == pytest.approx((0.4, 0.2))
    np.testing.assert_allclose(cine.frame_times_s, np.arange(12) * 0.04)


def test_dots_per_inch_are_no_spacing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", loop(), resolution=(72, 72), resolutionunit="INCH")
    assert read_cine(tmp_path / "a.tif").spacing_mm is None


def test_tiff_kinds(tmp_path: Path) -> None:
    pixels = loop(5)
    colour = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)
    tifffile.imwrite(tmp_path / "rgb.tif", colour, photometric="rgb", compression="zlib")
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "rgb.tif").frames), colour)
    tifffile.imwrite(tmp_path / "white.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "white.tif").frames), 255 - pixels)
    table = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", pixels, photometric="palette", colormap=table << 8)
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "palette.tif").frames), table.T[pixels])
    pictures = [Image.fromarray(frame) for frame in pixels]
    pictures[0].save(tmp_path / "lzw.tif", save_all=True, append_images=pictures[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "lzw.tif").frames), pixels)
    tifffile.imwrite(tmp_path / "wide.tif", (pixels * 200.0).astype(np.float32))
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "wide.tif").frames).max(), 255)


def test_stack_of_volumes_is_refused(tmp_path: Path) -> None:
    volumes = np.zeros((2, 6, 36, 50), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", volumes, imagej=True, metadata={"axes": "TZYX"})
    tifffile.imwrite(tmp_path / "c.tif", volumes[0, :3], imagej=True, metadata={"axes": "CYX"})
    sitk.WriteImage(sitk.GetImageFromArray(volumes, isVector=False), str(tmp_path / "a.nii"))
    for name in ("a.tif", "c.tif", "a.nii"):
        with pytest.raises(ReadError, match="not one ultrasound loop"):
            read_cine(tmp_path / name)


def test_tiff_whose_pages_form_a_ring(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", loop(2), compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, last = file.pages[0].offset, file.pages[1]
        link = last.offset + 2 + 12 * len(last.tags)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[link : link + 4] = first.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ReadError):
        read_cine(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii", ".nii.gz"])
def test_itk_spacing_is_row_then_column(suffix: str, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(loop())
    image.SetSpacing((0.2, 0.4, 1.0))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    assert read_cine(tmp_path / f"a{suffix}").spacing_mm == pytest.approx((0.4, 0.2))


def test_nrrd_and_mha_without_spacing(tmp_path: Path) -> None:
    pixels = loop(2)
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 50 36 2\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + pixels.tobytes())
    head = "ObjectType = Image\nNDims = 3\nDimSize = 50 36 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(head.encode() + pixels.tobytes())
    for name in ("a.nrrd", "a.mha"):
        cine = read_cine(tmp_path / name)
        assert cine.spacing_mm is None
        np.testing.assert_array_equal(np.asarray(cine.frames), pixels)


def test_nifti_loop_with_times(tmp_path: Path) -> None:
    pixels = loop(5)
    image = sitk.JoinSeries([sitk.GetImageFromArray(frame[None]) for frame in pixels], 0.0, 0.05)
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    cine = read_cine(tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)
    np.testing.assert_allclose(cine.frame_times_s, np.arange(5) * 0.05, rtol=1e-6)


@pytest.mark.parametrize("size", ["50000 50000 2", "500 500 2000000", "8000 8000 60"])
def test_header_that_lies_about_its_size(size: str, tmp_path: Path) -> None:
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {size}\nencoding: gzip\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + bytes(1000))
    with pytest.raises(ReadError, match=r"too (large|small)"):
        read_cine(tmp_path / "a.nrrd")


def save_frames(folder: Path, pixels: np.ndarray, name: str = "frame{}.png") -> None:
    folder.mkdir()
    for index, frame in enumerate(pixels):
        Image.fromarray(frame).save(folder / name.format(index))


def test_folder_in_natural_order(tmp_path: Path) -> None:
    pixels = loop(12)
    save_frames(tmp_path / "loop", pixels)
    (tmp_path / "loop" / ".hidden.png").write_bytes(b"not an image")
    (tmp_path / "loop" / "notes.txt").write_text("not a frame")
    cine = read_cine(tmp_path / "loop")
    np.testing.assert_array_equal(np.asarray(cine.frames), pixels)
    assert (cine.spacing_mm, cine.frame_times_s) == (None, None)


def test_folder_of_16_bit_colour_and_jpeg(tmp_path: Path) -> None:
    save_frames(tmp_path / "deep", loop(3).astype(np.uint16) * 200)
    top = float(loop(3).max())
    np.testing.assert_array_equal(np.asarray(read_cine(tmp_path / "deep").frames), np.rint(loop(3) * 255.0 / top))
    colour = np.random.default_rng(0).integers(0, 256, (3, 36, 50, 3), dtype=np.uint8)
    save_frames(tmp_path / "colour", colour, "{}.JPG")
    frames = read_cine(tmp_path / "colour").frames
    with Image.open(tmp_path / "colour" / "2.JPG") as image:
        np.testing.assert_array_equal(frames[2], np.asarray(image))


def test_folders_that_are_no_loop(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="holds no image"):
        read_cine(tmp_path / "empty")
    with pytest.raises(ReadError, match=r"holds 3 files that may be loops. Name one of them, such as heart_a4c.dcm"):
        read_cine(heart_path().parent)
    save_frames(tmp_path / "odd", loop(3))
    Image.fromarray(loop()[0][:30]).save(tmp_path / "odd" / "frame7.png")
    with pytest.raises(ReadError, match=r"frame7\.png is 50 x 30"):
        read_cine(tmp_path / "odd")
    save_frames(tmp_path / "cut", loop(3))
    (tmp_path / "cut" / "frame1.png").write_bytes((tmp_path / "cut" / "frame1.png").read_bytes()[:60])
    with pytest.raises(ReadError, match=r"frame1\.png"):
        read_cine(tmp_path / "cut").frame(1)


def test_sidecar(tmp_path: Path) -> None:
    save_frames(tmp_path / "loop", loop(3))
    (tmp_path / "loop" / "meta.json").write_text('{"spacing_mm": [0.3, 0.2], "fps": 50, "else": {}}')
    cine = read_cine(tmp_path / "loop")
    assert cine.spacing_mm == (0.3, 0.2)
    np.testing.assert_allclose(cine.frame_times_s, [0, 0.02, 0.04])
    (tmp_path / "loop.json").write_text('{"frame_times_s": [0, 0.1, 0.5], "fps": 50}')
    cine = read_cine(tmp_path / "loop")  # the one with the loop's name outranks meta.json
    assert cine.spacing_mm is None
    np.testing.assert_allclose(cine.frame_times_s, [0, 0.1, 0.5])
    assert read_cine(tmp_path / "loop", spacing_mm=(1, 2)).spacing_mm == (1, 2)


@pytest.mark.parametrize(
    "content",
    ["{", '{"spacing_mm": 0.3}', '{"spacing_mm": [0.3, -1]}', '{"spacing_mm": ["a", 1]}', '{"fps": 0}', '{"fps": true}',
     '{"frame_times_s": [0, 1]}', '{"frame_times_s": [0, 2, 1]}', '{"spacing_mm": [NaN, 1]}'],
)  # fmt: skip
def test_wrong_sidecar_is_refused(content: str, tmp_path: Path) -> None:
    save_frames(tmp_path / "loop", loop(3))
    (tmp_path / "loop.json").write_text(content)
    with pytest.raises(ReadError):
        read_cine(tmp_path / "loop")


class Counted(LazyFrames):
    """Frames that count how often they are decoded."""

    def __init__(self, pixels: np.ndarray, cache_bytes: int) -> None:
        super().__init__(pixels.shape, pixels.dtype, cache_bytes)
        self.pixels, self.decoded = pixels, 0

    def _decode(self, index: int) -> np.ndarray:
        self.decoded += 1
        return self.pixels[index].copy()


@pytest.mark.parametrize(
    "key",
    [3, -1, slice(2, 9, 3), slice(None), [1, 4], (2, slice(5), 7), (slice(1, 3), 4), (slice(None, None, -1), ..., 2),
     ..., (), np.int64(2), np.array([0, 5]), (np.array([1, 2]), slice(3))],
)  # fmt: skip
def test_lazy_frames_index_as_an_array(key: object) -> None:
    pixels = loop(10)
    np.testing.assert_array_equal(Counted(pixels, 1 << 20)[key], pixels[key])


def test_lazy_frames_keep_to_their_memory() -> None:
    pixels = loop(10)
    frames = Counted(pixels, 3 * pixels[0].nbytes)
    for index in (0, 1, 2, 0, 1, 2):
        frames[index]
    assert frames.decoded == 3
    frames[5]
    assert list(frames._cache) == [1, 2, 5]
    with pytest.raises(IndexError):
        frames[10]
    with pytest.raises(ValueError, match="read-only"):
        frames[5][0] = 0  # everyone gets the same array


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_are_read_ahead_by_another_thread(dtype: type) -> None:
    pixels = loop(10).astype(dtype)

    class Watched(Counted):
        def _decode(self, index: int) -> np.ndarray:
            readers[index] = threading.current_thread()
            if index == 7 and damaged:
                raise ReadError("Frame 7 is damaged")
            return super()._decode(index)

    readers: dict[int, threading.Thread] = {}
    damaged: list[bool] = []
    frames = Watched(pixels, 1 << 20)
    cine = Cine(frames)
    damaged.append(True)
    frames._cache.clear()
    for index in (4, 7):
        cine.read_ahead(index)
        readers_of = [thread for thread in threading.enumerate() if thread.name == "read ahead"]
        for thread in readers_of:
            thread.join()
        assert readers[index] is not threading.current_thread()
    decoded = frames.decoded
    cine.frame(4)
    assert frames.decoded == decoded
    with pytest.raises(ReadError, match="Frame 7"):
        cine.frame(7)
    Cine(pixels).read_ahead(3)  # arrays have nothing to read


def test_lazy_frames_from_several_threads(tmp_path: Path) -> None:
    make_video(tmp_path / "loop.mp4", *VIDEOS["b-frames.mp4"])
    reference = decode_in_order(tmp_path / "loop.mp4")
    frames = read_cine(tmp_path / "loop.mp4").frames
    frames._cache_frames = 2
    wrong: list[int] = []

    def look(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 40, 60):
            if not np.array_equal(frames[int(index)], reference[index]):
                wrong.append(int(index))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
