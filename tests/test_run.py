"""The whole recipe through the real command line: every stage, killed anywhere, twice with the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ayni.run import only_run_in
from tests.conftest import SMOKE, ayni, killed_when

Reached = Callable[[Path], bool]


def begun(artifact: str) -> Reached:
    """A stage is at work; or it was so short that it went by between two looks, and is done."""
    return lambda run: partial(run, artifact).exists() or published(run, artifact)


def training(artifact: str) -> Reached:
    """A stage has a training checkpoint to go on from; or, as above, is done."""
    return lambda run: any((partial(run, artifact) / "state").glob("step-*")) or published(run, artifact)


def done(artifact: str) -> Reached:
    return lambda run: published(run, artifact)


def partial(run: Path, artifact: str) -> Path:
    out = run / artifact
    return out.with_name(f".{out.name}.partial")


def published(run: Path, artifact: str) -> bool:
    return (run / artifact / "manifest.json").exists()


# Where the run is killed: between stages, and inside those that train.
KILLS: list[tuple[str, Reached]] = [
    ("inside pretraining", training("base")),
    ("between pretraining and SFT", done("base")),
    ("inside SFT", training("sft")),
    ("at a reward model", begun("v1_reward_helpfulness")),
    ("inside PPO", training("v2_ppo")),
    ("inside evaluation", done("eval/sft")),
]


def hashes(run: Path) -> dict[str, str]:
    return {
        str(path.parent.relative_to(run)): json.loads(path.read_text())["hash"]
        for path in sorted(run.rglob("manifest.json"))
    }


def kill_when(reached: Reached, run: Path, recipe: Path = SMOKE) -> None:
    """Starts the run (or goes on with it) and kills it, SIGKILL, as soon as `reached` holds."""
    killed_when(lambda: reached(run), "run", recipe, "--out", run)


def test_trap_16_a_run_killed_anywhere_equals_the_run_that_was_not(smoke_run: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    for _, reached in KILLS:
        kill_when(reached, killed)
    resumed = ayni("run", SMOKE, "--out", killed)
    assert resumed.returncode == 0, resumed.stderr
    assert hashes(killed) == hashes(smoke_run)
    assert (killed / "results.json").read_bytes() == (smoke_run / "results.json").read_bytes()
    assert not list(killed.rglob(".*.partial")), "nothing half-written is left"


def test_same_seed_same_hashes_and_another_seed_others(smoke_run: Path, tmp_path: Path) -> None:
    assert ayni("run", SMOKE, "--out", tmp_path / "again").returncode == 0
    assert hashes(tmp_path / "again") == hashes(smoke_run)
    assert ayni("run", SMOKE, "--out", tmp_path / "other", "--seed", "1").returncode == 0
    other, first = hashes(tmp_path / "other"), hashes(smoke_run)
    assert set(other) == set(first)
    assert all(other[name] != first[name] for name in ("data", "base", "sft", "v2_ppo"))


def test_a_finished_run_is_found_and_nothing_is_built_again(smoke_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke_run.rglob("manifest.json")}
    assert ayni("run", SMOKE, "--out", smoke_run).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in smoke_run.rglob("manifest.json")} == before


def test_results_hold_every_checkpoint_and_every_constant_policy(smoke_run: Path) -> None:
    results = json.loads((smoke_run / "results.json").read_text())
    rows = {row["name"]: row["metrics"] for row in results["checkpoints"]}
    assert list(rows) == [
        "base",
        "sft",
        "sft_clean",
        "v1",
        "v2_rejection",
        "v2",
        "always_refuse",
        "always_polite",
        "always_long",
    ]
    wanted = {
        "facts_right", "truthful", "helpful_win_vs_sft", "correct_win_vs_sft", "violation", "false_refusal", "toxicity", "mean_tokens", "kl", "distinct_3", "same_opening",
    }  # fmt: skip
    for name, metrics in rows.items():
        assert wanted <= set(metrics), name
        for metric, figure in metrics.items():
            assert set(figure) == {"value", "low", "high", "n", "unit"}, (name, metric)
            if figure["value"] is not None and figure["low"] is not None:
                assert figure["low"] <= figure["value"] <= figure["high"], (name, metric)
    assert rows["base"]["kl"]["value"] is None, "the base model is asked in another style: no KL against SFT"
    assert rows["sft"]["helpful_win_vs_sft"]["value"] == 0.5, "SFT against itself is a tie everywhere"
    assert rows["always_refuse"]["violation"]["value"] == 0.0
    assert (smoke_run / results["latest"] / "config.json").is_file()
    assert (smoke_run / "report.html").is_file()


def test_trap_09_a_batch_in_minibatches_is_so_many_optimizer_steps(smoke_run: Path) -> None:
    history = json.loads((smoke_run / "v2_ppo" / "history.json").read_text())
    steps = [row["optimizer_steps"] for row in history if "optimizer_steps" in row]
    assert steps == [32 // 8] * 3


def test_trap_21_no_held_out_prompt_is_in_what_trained(smoke_run: Path) -> None:
    """Read from the finished run: no evaluation prompt among demonstrations, preferences, rejection samples or prompts."""
    data = smoke_run / "data"

    def prompts(path: Path) -> set[str]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        turns = [row.get("prompt") or [m for m in row["messages"] if m["role"] != "assistant"] for row in rows]
        return {
            json.dumps([(m["role"], m["content"]) for m in messages if m["role"] != "assistant"]) for messages in turns
        }

    held_out = prompts(data / "prompts_eval.jsonl")
    trained = [
        data / "sft.jsonl",
        data / "prompts_train.jsonl",
        *smoke_run.glob("*_preferences/*.jsonl"),
        *smoke_run.glob("*_rejection/samples.jsonl"),
    ]
    assert len(trained) == 8
    for path in trained:
        assert not held_out & prompts(path), path


def test_two_runs_do_not_work_in_one_directory(tmp_path: Path) -> None:
    with only_run_in(tmp_path), pytest.raises(ValueError, match="another `ayni run`"), only_run_in(tmp_path):
        raise AssertionError("never reached")
    with only_run_in(tmp_path):
        assert (tmp_path / ".lock").is_file()


def test_times_and_memory_stand_apart_from_hashed_payload(smoke_run: Path) -> None:
    stages = json.loads((smoke_run / "timings.json").read_text())["stages"]
    assert {row["stage"] for row in stages} >= {
        "data",
        "tokenizer",
        "base",
        "sft",
        "v1_rejection",
        "v2_ppo",
        "eval/sft",
    }
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 10**7 for row in stages)
