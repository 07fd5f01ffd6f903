"""The temperature sweep: the choice is the best of K on held-out prompts, recomputed here answer by answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ayni.config import TemperatureSettings
from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.checkpoint import load_model
from ayni.scoring.reward import Scorers, load_reward_models
from ayni.stages import temperature
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import load_tokenizer
from tests.conftest import ayni

SETTINGS = TemperatureSettings(candidates=[0.5, 1.0, 2.0], prompts=5, k=4)


@pytest.fixture(scope="module")
def scorers(smoke_run: Path) -> Scorers:
    return Scorers(smoke_run / "v1_reward_helpfulness", smoke_run / "v1_reward_safety")


def sweep(smoke_run: Path, scorers: Scorers, out: Path, settings: TemperatureSettings = SETTINGS) -> dict:
    options = {"max_new_tokens": 16, "row_len": 128, "seed": 5}
    made = temperature.run(settings, smoke_run / "data", smoke_run / "sft", scorers, out, **options)
    return json.loads((made.path / temperature.SWEEP).read_text())


def test_figure_8_the_chosen_temperature_has_the_highest_best_of_k(
    smoke_run: Path, scorers: Scorers, tmp_path: Path
) -> None:
    found = sweep(smoke_run, scorers, tmp_path / "sweep")
    rows = read_prompts(smoke_run / "data" / "prompts_dev.jsonl")
    rows = rows[:: len(rows) // 5][:5]
    tokenizer, models = load_tokenizer(smoke_run / "sft"), load_reward_models(scorers)
    engine = Engine(load_model(smoke_run / "sft"), tokenizer)
    best = {}
    for candidate in SETTINGS.candidates:
        picked = []
        sampled = sample_answers(
            engine, tokenizer, rows, n=4, temperature=candidate, max_new_tokens=16, seed=row_seed(5, "temperature")
        )
        for row, answers in zip(rows, sampled):
            scores = [float(models.of_answers([row], [[answer]], 128).gated) for answer in answers]
            picked.append(max([s for s, answer in zip(scores, answers) if answer.ended], default=min(scores)))
        best[candidate] = sum(picked) / len(picked)
    assert {row["temperature"]: row["best"]["value"] for row in found["candidates"]} == pytest.approx(best, abs=1e-4)
    assert found["chosen"] == max(best, key=lambda candidate: best[candidate])
    assert temperature.chosen(tmp_path / "sweep") == found["chosen"]
    assert [(point["temperature"], point["k"]) for point in found["points"]] == [
        (candidate, k) for candidate in SETTINGS.candidates for k in (1, 2, 4)
    ]
    for row in found["candidates"]:
        assert row["best"]["low"] <= row["best"]["value"] <= row["best"]["high"]
        assert row["best"]["n"] == 5


def test_prompts_are_held_out_and_the_sweep_is_found_again(smoke_run: Path, scorers: Scorers, tmp_path: Path) -> None:
    first = sweep(smoke_run, scorers, tmp_path / "sweep")
    manifest = (tmp_path / "sweep" / "manifest.json").stat().st_mtime_ns
    assert sweep(smoke_run, scorers, tmp_path / "sweep") == first
    assert (tmp_path / "sweep" / "manifest.json").stat().st_mtime_ns == manifest
    held = {row["id"] for row in read_prompts(smoke_run / "data" / "prompts_dev.jsonl")}
    assert not held & {row["id"] for row in read_prompts(smoke_run / "data" / "prompts_train.jsonl")}


def test_the_command_says_which_temperature_to_go_on_with(smoke_run: Path, tmp_path: Path) -> None:
    done = ayni(
        "temperature", "--model", smoke_run / "sft", "--helpfulness", smoke_run / "v1_reward_helpfulness", "--data",
        smoke_run / "data" / "prompts_dev.jsonl", "--prompts", "3", "--k", "2", "--max-new-tokens", "8", "--set",
        "candidates=[0.5, 1.5]", "--out", tmp_path / "sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"--temperature {temperature.chosen(tmp_path / 'sweep'):g}" in " ".join(done.stdout.split())


def test_one_candidate_is_no_choice() -> None:
    with pytest.raises(ValidationError, match="at least 2 items"):
        TemperatureSettings(candidates=[1.0])
