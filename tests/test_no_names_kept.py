"""Opening and segmenting a DICOM loop leaves no patient's name behind: not in autosaves, logs or notices."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from napari_uniultra.core.types import Prompt
from napari_uniultra.model.build import build_network
from napari_uniultra.model.checkpoint import save_checkpoint
from napari_uniultra.model.config import architecture
from napari_uniultra.plugin.layers import cine_from_layer
from napari_uniultra.plugin.outcomes import ObjectEdit
from napari_uniultra.plugin.reader import get_reader
from napari_uniultra.plugin.session_host import SessionHost
from napari_uniultra.plugin.track_plan import TrackRequest
from napari_uniultra.sample_data import heart_path

CANARY = "CANARYX"


def _loop_with_names(folder: Path) -> Path:
    dataset = pydicom.dcmread(heart_path())
    dataset.PatientName, dataset.PatientID = f"{CANARY}^NAME", f"{CANARY}-7"
    dataset.OtherPatientNames = dataset.InstitutionName = dataset.StudyDescription = CANARY
    dataset.private_block(0x0099, CANARY, create=True).add_new(1, "LO", CANARY)
    dataset.save_as(folder / f"{CANARY}^NAME.dcm")
    return folder / f"{CANARY}^NAME.dcm"


def _all_bytes(path: Path) -> bytes:
    """A file's name and content; of an archive, that of its members too."""
    content = str(path).encode() + path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content += b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    return content


def test_nothing_that_is_kept_holds_a_name(
    tmp_path: Path, isolated_home: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    torch.manual_seed(0)
    config = architecture("uniultra-mini", image_size=64)
    network = build_network(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)  # it finds something to track
    save_checkpoint(tmp_path / "tiny.safetensors", network, config, {"licence": "Apache-2.0"})
    source = _loop_with_names(tmp_path)
    ((data, keywords, _),) = get_reader(str(source))(str(source))
    cine = cine_from_layer(data, keywords["rgb"], keywords["metadata"])
    assert CANARY in cine.source, "the name is there to be kept"

    notices: list[str] = []
    host = SessionHost(notices.append)
    host.open(cine)
    host.use_model(str(tmp_path / "tiny.safetensors"), "cpu")
    height, width = cine.shape_hw
    box = Prompt(box=(0.3 * width, 0.3 * height, 0.6 * width, 0.6 * height))
    host.ask({(1, 0): box, (2, 0): Prompt(mask=np.ones((3, 3), bool))})
    assert set(host.answer().errors) == {(2, 0)}
    host.edit_objects([ObjectEdit(1, "lumen")], 1)
    tracked = host.track(host.plan(TrackRequest("forward", 0, 0, len(cine) - 1)))
    for _ in range(3):
        next(tracked)
    tracked.close()
    host.open(cine)
    host.restore()
    host.save_session(tmp_path / "kept.uniultra", cine)
    (tmp_path / "kept.uniultra").rename(isolated_home / "kept.uniultra")

    kept = [path for path in isolated_home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".npz" for path in kept)
    for path in kept:
        assert CANARY.encode() not in _all_bytes(path)
        assert CANARY.encode("utf-32-le") not in _all_bytes(path), "as NumPy stores words"
    said = [caplog.text, *notices, *(str(warning.message) for warning in recwarn)]
    assert not any(CANARY in words for words in said)
