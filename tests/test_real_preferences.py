"""Reward models on real preferences, through the real command line: a slice of the published files, a tiny model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import ayni

DATA = Path(__file__).parents[2] / "shared" / "data"
ALPACA, HH = DATA / "alpacaeval_preferences_train.jsonl.gz", DATA / "hh_harmless_train.jsonl.gz"
FLAGS = ["--set", "row_len=256", "--set", "batch_pairs=16", "--set", "warmup_share=0.03"]


def slice_of(source: Path, target: Path, rows: int) -> Path:
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        target.write_text("".join(islice(lines, rows)), encoding="utf-8")
    return target


@pytest.mark.skipif(not (ALPACA.is_file() and HH.is_file()), reason=f"the real preferences are not in {DATA}")
def test_both_models_and_a_guard_on_published_pairs(smoke_run: Path, tmp_path: Path) -> None:
    """Accuracy by strength beside the length baseline; HH harmless, which says no strength, as the safety model's own and open."""
    alpaca, hh = slice_of(ALPACA, tmp_path / "alpaca.jsonl", 120), slice_of(HH, tmp_path / "hh.jsonl", 60)
    grades = tmp_path / "grades.jsonl"
    grades.write_text(
        json.dumps({"prompt": "Name a bird.", "answer": "A wren.", "ratings": {"Ann": 6, "Ben": 7}}) + "\n"
    )
    commands = {
        "helpfulness": ["--data", alpaca, "--open", hh, "--ratings", grades, "--set", "pairs=40"],
        "safety": ["--data", hh, "--kind", "safety", "--open", alpaca],
        "guard": ["--data", hh, "--data", alpaca, "--kind", "guard"],
    }
    reports = {}
    for name, flags in commands.items():
        done = ayni("reward", "--model", smoke_run / "sft", *flags, *FLAGS, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "by longer" in done.stdout
        assert "next: ayni" in done.stdout
        reports[name] = json.loads((tmp_path / name / "accuracy.json").read_text())
    helpful = reports["helpfulness"]
    assert helpful["accuracy"]["n"] == sum(row["n"] for row in helpful["accuracy_by_strength"]) >= 10
    beside = helpful["baselines"]["by_strength"]
    assert [row["longer"]["n"] for row in beside] == [row["n"] for row in helpful["accuracy_by_strength"]]
    assert set(helpful["baselines"]["all"]) == {"longer", "length", "words"}
    assert helpful["ratings"]["n"] == 1
    assert {row["set"] for row in helpful["accuracy_by_set"]} == {"helpful", "open helpful"}
    safety = reports["safety"]
    assert safety["accuracy"]["n"] >= 6
    assert sum(row["n"] for row in safety["accuracy_by_strength"]) == 0, "HH-RLHF gives no strength"
    assert {row["annotator"] for row in safety["accuracy_by_annotator"]} == {"unknown"}
    assert safety["gate"]["threshold"] == 0.15, "and no safety label either: the paper's threshold"
    assert reports["guard"]["accuracy"]["n"] > safety["accuracy"]["n"]


def test_ratings_that_are_none_are_named(fails: Callable[..., str], smoke_run: Path, tmp_path: Path) -> None:
    grades = tmp_path / "grades.jsonl"
    grades.write_text(json.dumps({"prompt": "Name a bird.", "answer": "A wren.", "ratings": 5}) + "\n")
    pairs = smoke_run / "v1_preferences" / "train.jsonl"
    command = ["reward", "--model", smoke_run / "sft", "--data", pairs, *FLAGS, "--out", tmp_path / "o", "--ratings"]
    assert f"{grades}, line 1: ratings must be like" in fails(*command, grades)
    assert "none.jsonl: no such file" in fails(*command, tmp_path / "none.jsonl")
    assert not (tmp_path / "o").exists()
