"""What napari's plugin system gets from us: reader, writer, and a panel that loads no model until it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image
from npe2 import PluginManager

from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, WriteError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.masks import read_masks
from napari_uniultra.io.writers import FORMATS
from napari_uniultra.io.writers.formats import MaskFormat
from napari_uniultra.plugin.layers import METADATA_KEY, cine_from_layer, features_of_names, metadata_of
from napari_uniultra.plugin.reader import get_reader, image_layer
from napari_uniultra.plugin.writer import write_labels


class CountedFrames:
    """A loop that knows which frames were asked of it."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, count: int) -> None:
        self.shape, self.read = (count, 32, 48), set()
        self.size = count * 32 * 48

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first = key[0] if isinstance(key, tuple) else key
        self.read |= set(np.atleast_1d(np.arange(len(self))[first]).tolist())
        return np.zeros(self.shape, np.uint8)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise AssertionError("the whole loop was decoded")


def tiff_loop(folder: Path) -> Path:
    path = folder / "probe.tif"
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 48), dtype=np.uint8)
    tifffile.imwrite(
        path,
        frames,
        imagej=True,
        resolution=(1 / 0.3, 1 / 0.2),
        metadata={"axes": "TYX", "unit": "mm", "finterval": 0.04},
    )
    return path


def test_a_loop_opens_in_mm_with_what_its_file_knows(make_napari_viewer: Callable[..., Any], tmp_path: Path) -> None:
    path = tiff_loop(tmp_path)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin="napari-uniultra")
    assert (layer.name, layer.rgb, layer.ndim) == ("probe", False, 3)
    assert np.allclose(layer.scale, (1, 0.2, 0.3))
    assert [str(unit) for unit in layer.units] == ["pixel", "millimeter", "millimeter"]
    expected = read_cine(path)
    cine = cine_from_layer(layer.data, layer.rgb, layer.metadata)
    assert cine.key == expected.key
    assert np.allclose(cine.spacing_mm, (0.2, 0.3))
    assert np.allclose(cine.frame_times_s, np.arange(5) * 0.04)


def test_a_long_loop_is_decoded_only_where_it_is_looked_at(make_napari_viewer: Callable[..., Any]) -> None:
    frames = CountedFrames(2000)
    viewer = make_napari_viewer()
    data, keywords, kind = image_layer(Cine(frames), "long")
    assert kind == "image"
    viewer.add_image(data, **keywords)
    for frame in (0, 1700):
        viewer.dims.set_point(0, frame)
    assert {0, 1700} <= frames.read
    assert len(frames.read) < 10


def test_a_still_opens_as_a_picture() -> None:
    data, keywords, _ = image_layer(Cine(np.zeros((32, 48, 3), np.uint8), spacing_mm=(0.1, 0.2)), "still")
    layer = Image(data, **keywords)
    assert (layer.ndim, layer.rgb) == (2, True)
    assert np.allclose(layer.scale, (0.1, 0.2))


def test_what_is_not_ours_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    loop = str(tiff_loop(tmp_path))
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(str(tmp_path / "empty")) is None
    assert get_reader([loop, loop]) is None
    assert get_reader([loop])([loop])[0][2] == "image"


def test_a_broken_file_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "broken.dcm"
    path.write_bytes(bytes(128) + b"DICM" + b"nothing")
    with pytest.raises(ReadError, match=r"broken\.dcm"):
        get_reader(str(path))(str(path))


@pytest.mark.parametrize("shape", [(5, 32, 48), (32, 48)])
def test_masks_are_saved_with_the_loops_spacing(
    make_napari_viewer: Callable[..., Any], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    labels = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint16)
    cine = Cine(np.zeros(shape, np.uint8), spacing_mm=(0.2, 0.3))
    layer = make_napari_viewer().add_labels(labels, metadata=metadata_of(cine))
    saved = layer.save(str(tmp_path / "masks.tif"), plugin="napari-uniultra")
    assert saved == [str(tmp_path / "masks.tif")]
    again = read_cine(saved[0])
    assert np.allclose(again.spacing_mm, (0.2, 0.3))
    assert np.array_equal(tifffile.imread(saved[0]).reshape(shape), labels)


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: entry.name)
def test_every_format_can_be_saved_from_the_viewer(
    make_napari_viewer: Callable[..., Any], tmp_path: Path, entry: MaskFormat
) -> None:
    viewer = make_napari_viewer()
    (image,) = viewer.open_sample("napari-uniultra", "heart")
    labels = np.zeros(image.data.shape[:3], np.uint16)
    labels[:, 40:80, 60:90] = 2
    layer = viewer.add_labels(labels, metadata=image.metadata, features=features_of_names({2: "left ventricle"}))
    (saved,) = layer.save(str(tmp_path / f"masks{entry.suffixes[0]}"), plugin="napari-uniultra")
    if entry.name in ("mp4", "gif", "yolo"):
        assert Path(saved).exists()
        return
    back = read_masks(saved)
    np.testing.assert_array_equal(back.labels, labels)
    assert np.allclose(back.spacing_mm, image.metadata[METADATA_KEY]["spacing_mm"])
    if entry.name != "tiff":
        assert back.names[2] == "left ventricle"


def test_the_manifest_offers_every_format() -> None:
    manifest = PluginManager.instance().get_manifest("napari-uniultra")
    offered = {suffix for writer in manifest.contributions.writers for suffix in writer.filename_extensions}
    assert offered == {suffix for entry in FORMATS for suffix in entry.suffixes}


def test_masks_in_another_format_or_place_are_refused(tmp_path: Path) -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(WriteError, match=r"\.xyz"):
        write_labels(str(tmp_path / "masks.xyz"), masks, {})
    with pytest.raises(WriteError, match="own file"):
        write_labels(str(tmp_path / "masks.dcm"), masks, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        write_labels(str(tmp_path / "file" / "masks.tif"), masks, {})


def test_opening_the_panel_imports_neither_torch_nor_sam2() -> None:
    code = """
import sys
from napari import Viewer
viewer = Viewer(show=False)
viewer.window.add_plugin_dock_widget("napari-uniultra", "Segment loop")
print([name for name in ("torch", "sam2") if name in sys.modules])
viewer.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("sample", ["heart", "simulated"])
def test_the_sample_loops_open(make_napari_viewer: Callable[..., Any], sample: str) -> None:
    (layer,) = make_napari_viewer().open_sample("napari-uniultra", sample)
    assert layer.ndim == 3
    assert len(layer.data) == 30
    assert layer.metadata[METADATA_KEY]["spacing_mm"] is not None
