"""Whether a noted process lives: numbers used again, a clock that is set, computers that are renamed or others."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from napari_uniultra.core.places import cache_folder, config_folder, data_folder
from napari_uniultra.core.process import describe_process, is_here, is_running, this_process

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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system notes the time once")
def test_setting_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_places_are_the_same_from_every_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_UNIULTRA_HOME", "mine")
    assert {data_folder(), cache_folder(), config_folder()} == {tmp_path / "mine"}
