"""Artifacts stand whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from ayni import artifacts
from ayni.artifacts import build, content_hash, fingerprint, published


def writes(text: str):
    def work_in(work: Path) -> None:
        (work / "payload.txt").write_text(text)
        (work / "logs" / "metrics.jsonl").write_text("times differ\n")

    return work_in


def test_equal_content_gives_equal_hashes_and_logs_do_not_count(tmp_path: Path) -> None:
    one = build(tmp_path / "one", "stage", {}, {}, 0, writes("same"))
    two = build(tmp_path / "two", "stage", {}, {}, 0, writes("same"))
    (tmp_path / "two" / "logs" / "metrics.jsonl").write_text("other times\n")
    three = build(tmp_path / "three", "stage", {}, {}, 0, writes("other"))
    assert one.hash == two.hash == content_hash(tmp_path / "two")
    assert one.hash != three.hash


def test_a_finished_artifact_is_taken_as_it_stands_until_settings_inputs_or_seed_change(tmp_path: Path) -> None:
    given = tmp_path / "input.txt"
    given.write_text("a")
    out = tmp_path / "out"
    assert build(out, "stage", {"k": 1}, {"given": given}, 0, writes("first")).fresh
    assert not build(out, "stage", {"k": 1}, {"given": given}, 0, writes("never")).fresh
    assert build(out, "stage", {"k": 2}, {"given": given}, 0, writes("second")).fresh
    assert build(out, "stage", {"k": 2}, {"given": given}, 1, writes("third")).fresh
    given.write_text("b")
    assert build(out, "stage", {"k": 2}, {"given": given}, 1, writes("fourth")).fresh
    assert (out / "payload.txt").read_text() == "fourth"


def test_trap_17_a_failure_publishes_nothing_and_leaves_the_old_artifact(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(out, "stage", {"k": 1}, {}, 0, writes("good"))

    def fails(work: Path) -> None:
        (work / "payload.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        build(out, "stage", {"k": 2}, {}, 0, fails)
    assert (out / "payload.txt").read_text() == "good"
    assert published(out, fingerprint("stage", {"k": 1}, {}, 0)) is not None


def test_a_killed_stage_finds_its_partial_directory_again_and_other_settings_drop_it(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stopped(work: Path) -> None:
        (work / "state").mkdir(exist_ok=True)
        (work / "state" / "step").write_text("10")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(out, "stage", {"k": 1}, {}, 0, stopped)
    seen: list[bool] = []

    def goes_on(work: Path) -> None:
        seen.append((work / "state" / "step").exists())
        (work / "payload.txt").write_text("done")

    build(out, "stage", {"k": 1}, {}, 0, goes_on)
    assert not (out / "state").exists(), "training state is not published"
    with pytest.raises(KeyboardInterrupt):
        build(out, "stage", {"k": 3}, {}, 0, stopped)
    build(out, "stage", {"k": 4}, {}, 0, goes_on)
    assert seen == [True, False]


def test_a_payload_file_gone_or_cut_short_means_not_published(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(out, "stage", {}, {}, 0, writes("whole"))
    (out / "payload.txt").write_text("who")
    assert published(out, fingerprint("stage", {}, {}, 0)) is None


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(work: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ValueError, match=r"the disk is full; nothing was published"):
        build(tmp_path / "out", "stage", {}, {}, 0, no_room)
    usage = artifacts.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(ValueError, match=r"only 1 MiB of disk left"):
        build(tmp_path / "other", "stage", {}, {}, 0, writes("x"))
    assert not (tmp_path / "other").exists()


def test_the_manifest_names_what_an_artifact_was_made_from(tmp_path: Path) -> None:
    first = build(tmp_path / "first", "one", {"a": 1}, {}, 7, writes("x"))
    build(tmp_path / "second", "two", {"b": 2}, {"first": first.path}, 8, writes("y"))
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert manifest["inputs"] == {"first": {"path": "../first", "hash": first.hash}}
    assert (manifest["stage"], manifest["settings"], manifest["seed"]) == ("two", {"b": 2}, 8)
    assert set(manifest["files"]) == {"payload.txt"}


def test_trap_17_a_kill_while_training_state_is_dropped_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by killing runs: state.json gone, its folder still there, and the next start fell over it."""
    out, seen = tmp_path / "out", []

    def work_in(work: Path) -> None:
        seen.append((work / "state").exists())
        (work / "state" / "step-1").mkdir(parents=True, exist_ok=True)
        (work / "state" / "step-1" / "state.json").write_text("{}")
        (work / "payload.txt").write_text("done")

    def killed_half_way(path: Path, **_: object) -> None:
        files = [file for file in Path(path).rglob("*") if file.is_file()]
        if files:
            files[0].unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(artifacts.shutil, "rmtree", killed_half_way)
        with pytest.raises(KeyboardInterrupt):
            build(out, "stage", {}, {}, 0, work_in)
    whole = build(out, "stage", {}, {}, 0, work_in)
    assert seen == [False, False]
    assert set(whole.manifest["files"]) == {"payload.txt"}
    assert {path.name for path in out.iterdir()} == {"payload.txt", "manifest.json", "logs"}
