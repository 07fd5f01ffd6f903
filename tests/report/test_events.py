"""Metrics logs as TensorBoard event files, read back by TensorBoard itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ayni.report.events import EventFiles, convert, logs, scalars

MakeRun = Callable[..., Path]


def read_back(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value), as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def write_log(directory: Path, rows: list[dict[str, Any]]) -> None:
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    (directory / "logs" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def close(found: list[tuple[int, float]]) -> list[tuple[int, Any]]:
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in found]


def test_every_number_of_every_log_comes_back(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    stages = convert(run, tmp_path / "events")
    assert set(stages) == {"base", "sft", "v1_reward_helpfulness", "v1_reward_safety", "v1_rejection", "v2_ppo"}
    for stage, path in logs(run).items():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        expected: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            for tag, value in scalars(row):
                expected.setdefault(tag, []).append((row["step"], value))
        found = read_back(tmp_path / "events" / stage)
        assert found == {tag: close(points) for tag, points in expected.items()}
    assert "perplexity/stories" in read_back(tmp_path / "events" / "base")


def test_converting_again_replaces_ours_alone(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "events"
    (out / "sft").mkdir(parents=True)
    (out / "sft" / "notes.txt").write_text("the user's")
    convert(run, out)
    first = read_back(out / "sft")
    convert(run, out)
    assert read_back(out / "sft") == first
    assert len(list((out / "sft").glob("*.ayni"))) == 1
    assert (out / "sft" / "notes.txt").read_text() == "the user's"


def test_following_a_run_that_was_killed_and_resumed(tmp_path: Path) -> None:
    run, at_work = tmp_path / "run", tmp_path / "run" / ".base.partial"
    events = EventFiles(tmp_path / "events")
    write_log(at_work, [{"step": i, "loss": 5.0 - i} for i in (1, 2, 3, 4)])
    events.follow(run)
    write_log(at_work, [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}, {"step": 3, "loss": 9.0}])  # resumed at 2
    events.follow(run)
    write_log(at_work, [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}, {"step": 3, "loss": 9.0}, {"step": 4, "loss": 8.0}])  # fmt: skip
    at_work.rename(run / "base")  # published
    assert events.follow(run) == {"base": 4}
    events.close()
    assert read_back(tmp_path / "events" / "base") == {"loss": [(1, 4.0), (2, 3.0), (3, 9.0), (4, 8.0)]}


def test_scalars_of_a_row() -> None:
    row = {"step": 3, "loss": 1.5, "note": "x", "early": None, "done": True, "perplexity": {"step": 7, "a b": 2}}
    assert dict(scalars(row)) == {"loss": 1.5, "perplexity/step": 7.0, "perplexity/a b": 2.0}


def test_without_the_package_one_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_log(tmp_path / "base", [{"step": 1, "loss": 2.0}])
    with pytest.raises(ValueError, match=r"pip install 'ayni\[tensorboard\]'"):
        convert(tmp_path, tmp_path / "events")
    assert not (tmp_path / "events").exists()


def test_a_directory_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no metrics log"):
        convert(tmp_path, tmp_path / "events")


def test_a_stage_that_is_about_to_be_removed_is_passed_over(tmp_path: Path) -> None:
    for name in ("base", ".base.old", ".sft.partial"):
        write_log(tmp_path / name, [{"step": 1, "loss": 2.0}])
    assert {stage: path.parts[-3] for stage, path in logs(tmp_path).items()} == {"base": "base", "sft": ".sft.partial"}
