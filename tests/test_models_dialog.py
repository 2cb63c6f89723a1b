"""Models in the panel and in their dialog: real files, real downloads from a server on this machine."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from panel_window import Window, loop, settle, until
from qtpy.QtWidgets import QMessageBox
from weight_server import Server, source

from napari_uniultra.model import catalogue, download
from napari_uniultra.model.download import Download
from napari_uniultra.model.zoo import bytes_received
from napari_uniultra.plugin.model_shelf import Transfer
from napari_uniultra.widgets.model_box import ModelBox
from napari_uniultra.widgets.models_dialog import ModelsDialog

pytestmark = pytest.mark.gui

NAME = "sam2.1-tiny"


@pytest.fixture
def box(qtbot: Any) -> Any:
    from qtpy.QtWidgets import QFormLayout, QWidget

    panel = QWidget()
    qtbot.addWidget(panel)
    made = ModelBox(panel)
    made.add_rows(QFormLayout(panel))
    yield made
    made.shelf.close()


@pytest.fixture
def dialog(box: ModelBox) -> ModelsDialog:
    return box.show_dialog()


def offer(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Download:
    found = source(server, content)
    monkeypatch.setitem(download.DOWNLOADS, NAME, found)
    return found


def listed(box: ModelBox) -> list[str]:
    return [box.models.itemText(row) for row in range(box.models.count())]


def wait(qtbot: Any, dialog: ModelsDialog) -> None:
    qtbot.waitUntil(lambda: not dialog.shelf.downloading, timeout=30_000)


def test_every_model_is_listed_with_what_it_is(dialog: ModelsDialog) -> None:
    rows = [
        [dialog.list.topLevelItem(row).text(column) for column in range(dialog.list.columnCount())]
        for row in range(dialog.list.topLevelItemCount())
    ]
    by_name = {row[0]: row for row in rows}
    assert by_name["uniultra-mini"][1:6] == ["yes, with the plugin", "16 MB", "8.1 million", "512 px", "Apache-2.0"]
    assert by_name["sam2.1-large"][1:6] == ["can be downloaded", "898 MB", "224.4 million", "1024 px", "Apache-2.0"]
    assert all(row[6] for row in rows), "each says what it is for"
    dialog.choose("sam2.1-large")
    assert dialog.download_button.text() == "Download (898 MB, Apache-2.0)"
    assert "Meta" in dialog.about.toPlainText()
    assert not dialog.use_button.isEnabled()
    assert not dialog.forget_button.isEnabled()


def test_the_card_names_the_data_a_model_was_trained_on(dialog: ModelsDialog, qtbot: Any) -> None:
    dialog.choose("uniultra-mini")
    dialog.details_button.click()
    qtbot.waitUntil(lambda: "Trained on" in dialog.about.toPlainText(), timeout=10_000)
    words = dialog.about.toPlainText()
    assert "CC BY 4.0" in words
    assert "not a medical device" in words
    assert catalogue.find_model("uniultra-mini").sha256 in words


def test_a_download_shows_in_the_panel_and_stays(
    box: ModelBox,
    dialog: ModelsDialog,
    server: Server,
    official_file: bytes,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(server, official_file, monkeypatch)
    told: list[Transfer | None] = []
    dialog.shelf.progressed.connect(told.append)
    dialog.refresh()
    dialog.choose(NAME)
    dialog.download_button.click()
    assert not dialog.download_button.isEnabled()
    wait(qtbot, dialog)
    assert told[-1] is None
    assert (told[-2].have, told[-2].total) == (len(official_file), len(official_file))
    assert NAME in listed(box)
    assert NAME in listed(ModelBox(box.parentWidget())), "the next start finds it"
    assert dialog.chosen.origin == "added"
    chosen: list[tuple[str, str]] = []
    box.chosen.connect(lambda *args: chosen.append(args))
    dialog.use_button.click()
    assert chosen == [(NAME, "auto")]


def test_a_stopped_download_goes_on_later(
    dialog: ModelsDialog, server: Server, official_file: bytes, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = offer(server, official_file, monkeypatch)
    server.mode = "slow"
    dialog.refresh()
    dialog.choose(NAME)
    dialog.download_button.click()
    qtbot.waitUntil(lambda: "MB" in dialog.progress.format() and bytes_received(NAME) > 0, timeout=10_000)
    dialog.cancel_button.click()
    server.released.set()  # the network goes on a little
    wait(qtbot, dialog)
    assert "kept" in dialog.status.text()
    assert 0 < bytes_received(NAME) < found.size
    assert catalogue.find_model(NAME).path is None
    assert dialog.download_button.text().startswith("Go on downloading")
    server.mode = "good"
    dialog.download_button.click()
    wait(qtbot, dialog)
    assert catalogue.find_model(NAME).origin == "added"
    assert server.requests[1].startswith("bytes=")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("another file", "not the expected file"),
        ("missing", "404"),
        ("away", "Check the network"),
        ("cut", "go on"),
        ("no room", "too full"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_left_broken(
    dialog: ModelsDialog,
    box: ModelBox,
    server: Server,
    official_file: bytes,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    words: str,
) -> None:
    offer(server, official_file, monkeypatch)
    if trouble == "another file":
        server.content = official_file[:-1] + b"x"
    elif trouble == "away":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setitem(download.DOWNLOADS, NAME, Download(url, len(official_file), "0" * 64))
    elif trouble == "no room":
        full = SimpleNamespace(free=1 << 20)
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _: full)
    else:
        server.mode = trouble
    dialog.refresh()
    dialog.choose(NAME)
    dialog.download_button.click()
    wait(qtbot, dialog)
    assert words in dialog.status.text()
    assert NAME not in listed(box)
    assert dialog.download_button.isEnabled()
    assert not dialog.progress.isVisible()


def test_a_file_is_added_chosen_and_forgotten(
    box: ModelBox,
    dialog: ModelsDialog,
    checkpoint: Path,
    tmp_path: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = shutil.copyfile(checkpoint, tmp_path / "My probe.safetensors")
    dialog.shelf.add(file)
    qtbot.waitUntil(lambda: "my-probe" in listed(box), timeout=20_000)
    dialog.choose("my-probe")
    dialog.use_button.click()
    assert box.name == "my-probe"
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    dialog.forget_button.click()
    assert len(answers) == 1
    assert "my-probe" in listed(box)
    dialog.forget_button.click()
    qtbot.waitUntil(lambda: "my-probe" not in listed(box), timeout=10_000)
    assert box.name == "uniultra-mini"
    assert file.is_file(), "the user's own file stays"


def test_a_damaged_file_is_not_added(dialog: ModelsDialog, tmp_path: Path, qtbot: Any) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    dialog.shelf.add(tmp_path / "broken.safetensors")
    qtbot.waitUntil(lambda: "broken.safetensors" in dialog.status.text() and "damaged" in dialog.status.text())
    assert [info.origin for info in catalogue.list_models()].count("added") == 0


def test_closing_does_not_wait_for_a_silent_server(
    box: ModelBox, server: Server, official_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(server, official_file, monkeypatch)
    server.mode = "silent"
    box.shelf.download(NAME)
    closing = threading.Thread(target=box.shelf.close)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()


# In the panel ---------------------------------------------------------------------------------------------------------


def test_the_panel_says_where_the_model_runs(window: Window) -> None:
    box = window.panel.model_box
    assert box.where.text() == "Loads with the first mark"
    window.open(loop())
    window.draw_box()
    settle(window)
    assert box.where.text().startswith("On ")
    box.devices.setCurrentIndex(box.devices.findData("cpu"))
    settle(window)
    assert box.where.text().startswith("On the processor (")


@pytest.mark.parametrize("trouble", ["memory", "device"])
def test_a_machine_that_cannot_run_the_model_is_told_and_nothing_is_lost(
    window: Window, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    from napari_uniultra.model import device, room

    window.open(loop())
    window.draw_box()
    settle(window)
    before = window.masks().copy()
    box = window.panel.model_box
    if trouble == "memory":
        memory = SimpleNamespace(available=1 << 20, total=4 << 30)
        monkeypatch.setattr(room.psutil, "virtual_memory", lambda: memory)
        box.choose("uniultra-mini")
    else:
        monkeypatch.setattr(device, "available_devices", lambda: ("cpu",))
        box.devices.setCurrentIndex(box.devices.count() - 2)  # the graphics card
    settle(window)
    expected = "too little memory" if trouble == "memory" else "no device 'cuda'"
    assert any(expected in words for words in window.told)
    assert (window.masks() == before).all()
    monkeypatch.undo()
    box.devices.setCurrentIndex(box.devices.findData("cpu"))
    window.draw_box(frame=3)
    until(window, lambda: window.masks()[3].any())
