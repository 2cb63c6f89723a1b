"""Whether a noted process lives: numbers used again, a clock that is set, computers that are renamed or others."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from napari_uniultra.core import process
from napari_uniultra.core.places import cache_folder, config_folder, data_folder
from napari_uniultra.core.process import describe_process, is_here, is_running, this_process
from napari_uniultra.segment.autosave import autosave_folder

ELSEWHERE = {"boot": "another", "host": "elsewhere", "machine": "another"}


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    noted = describe_process(child.pid)
    assert is_here(noted)
    assert is_running(noted)
    assert noted != {**this_process(), "pid": child.pid}
    child.kill()
    child.communicate()
    assert not is_running(noted)
    assert not is_running({**this_process(), "started": noted["started"]})
    with pytest.raises(psutil.NoSuchProcess):
        describe_process(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="psutil's clock is set as on Linux")
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_setting_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    noted, seen = this_process(), psutil.Process().create_time()
    boot_time = psutil._pslinux.boot_time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time() + 5)  # as after a step of five seconds
    assert psutil.Process().create_time() == pytest.approx(seen + 5)
    assert is_running(noted)
    assert this_process() == noted


def test_a_new_name_makes_no_other_computer_and_the_same_name_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = this_process()
    dead = {**noted, "boot": "before the restart", "started": "then"}
    assert is_here(dead)
    assert not is_running(dead)
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    assert is_here(noted)
    assert is_running(noted)
    for other in ({**noted, **ELSEWHERE}, {**noted, **ELSEWHERE, "host": "renamed"}, {"pid": 1, "host": "renamed"}):
        assert not is_here(other)
        assert is_running(other)  # as far as can be told


def put_card(folder: Path, name: str, address: str, *, is_virtual: bool = False) -> None:
    (folder / name).mkdir()
    (folder / name / "address").write_text(f"{address}\n")
    if not is_virtual:
        (folder / name / "device").mkdir()


@pytest.mark.skipif(not process._first_line(*process._MACHINE_IDS), reason="this computer has no number")
def test_a_computer_that_was_renamed_and_restarted_is_known_by_its_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_CARDS", tmp_path)
    put_card(tmp_path, "lo", "00:00:00:00:00:00", is_virtual=True)
    put_card(tmp_path, "docker0", "00:11:22:33:44:77", is_virtual=True)
    put_card(tmp_path, "eth0", "02:fc:00:00:00:01")  # as that of many a virtual machine
    before = {**this_process(), "boot": "before pid:[1]", "started": "before 1"}
    renamed = {**before, "host": "renamed"}
    assert is_here(before)
    assert not is_here(renamed)
    assert is_running(renamed)
    put_card(tmp_path, "wlan0", "00:11:22:33:44:66")
    put_card(tmp_path, "eth1", "00:11:22:33:44:55")
    noted = {**this_process(), "boot": "before pid:[1]", "started": "before 1", "host": "renamed"}
    assert noted["cards"] == "00:11:22:33:44:55 00:11:22:33:44:66"
    assert is_here(noted)
    assert not is_running(noted)
    in_a_container = {**noted, "boot": f"{this_process()['boot'].split()[0]} pid:[1]"}
    for other in ({**noted, "machine": "another"}, {**noted, "cards": "00:11:22:33:44:55"}, renamed, in_a_container):
        assert not is_here(other)
        assert is_running(other)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a network card tells computers apart")
def test_containers_without_a_number_are_told_apart_by_their_computers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("machine-id", "boot_id"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(process, "_MACHINE_IDS", (tmp_path / "machine-id",))
    noted = this_process()
    assert is_here({**noted, "boot": f"{noted['boot'].split()[0]} pid:[1]"})  # the container was restarted
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(process, "_BOOT_ID", tmp_path / "boot_id")
    assert not is_here(noted)  # one of the same name on another computer
    assert is_running(noted)


def test_places_are_the_same_from_every_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_UNIULTRA_HOME", "mine")
    assert {data_folder(), cache_folder(), config_folder()} == {tmp_path / "mine"}


def test_unsaved_work_does_not_lie_where_systems_clear_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAPARI_UNIULTRA_HOME")
    assert data_folder() in autosave_folder().parents
    assert cache_folder() not in autosave_folder().parents
