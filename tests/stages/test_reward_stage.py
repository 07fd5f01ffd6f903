"""The reward stage: its losses, the likelihood term, the guard, and the report of what it trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.config import RewardSettings
from ayni.engine.score import scores_of
from ayni.feedback.pairs import encode_pairs
from ayni.model.checkpoint import load_model, load_scalar
from ayni.recipe import load_recipe
from ayni.record import Run
from ayni.run import train_guard
from ayni.scoring.reward import load_reward_model
from ayni.stages.preferences import is_held_out
from ayni.stages.reward import Pair, _safety_term, _warmed_up, run, with_likelihood
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import load_tokenizer
from tests.conftest import SMOKE


def test_trap_21_a_held_out_prompt_is_held_out_in_every_round() -> None:
    ids = [f"prompts_train-fact-{i}" for i in range(2000)]
    held = [is_held_out(name, 0.1) for name in ids]
    assert held == [is_held_out(f"{name}#1", 0.1) for name in ids], "a prompt drawn again goes where it went before"
    assert 0.07 < sum(held) / len(held) < 0.13


def test_trap_12_pairs_equal_after_truncation_are_dropped_and_counted(smoke_run: Path) -> None:
    tokenizer = load_tokenizer(smoke_run / "sft")
    prompt = [{"role": "user", "content": "Where does she live?"}]
    long = "word " * 40

    def row(chosen: str, rejected: str) -> dict[str, Any]:
        sides = {"chosen": chosen, "rejected": rejected}
        return {"prompt": prompt, **{k: [{"role": "assistant", "content": v}] for k, v in sides.items()}}

    pairs, dropped = encode_pairs(tokenizer, [row("a " + long, "b " + long), row("Here.", "There.")], 16)
    assert (len(pairs), dropped) == (1, 1)
    assert pairs[0].chosen != pairs[0].rejected


def test_the_likelihood_term_is_fitted_and_scored_as_written(smoke_run: Path, tmp_path: Path) -> None:
    """c is the minimiser of the ranking loss (grid as oracle); the saved model's score is head + c * mean log-probability."""
    sft, out = smoke_run / "sft", tmp_path / "reward"
    settings = RewardSettings(row_len=128, batch_pairs=16, likelihood=True)
    run(settings, "helpfulness", sft, [smoke_run / "v1_preferences"], out, seed=0)
    model = load_reward_model(out)
    tokenizer, chat_model = load_tokenizer(sft), load_model(sft)
    rows = read_preferences(smoke_run / "v1_preferences" / "train.jsonl")
    pairs, _ = encode_pairs(tokenizer, rows, 128)
    fitted, c = with_likelihood(chat_model, pairs, settings)
    assert model.coefficient == pytest.approx(c, rel=0.5)

    difference = [pair.offset / c for pair in fitted] if c > 1e-3 else []
    margins = [(0, 1 / 3, 2 / 3, 1)[pair.strength] for pair in pairs]

    def loss(value: float) -> float:
        return sum(math.log1p(math.exp(m - value * d)) for m, d in zip(margins, difference)) / len(pairs)

    if difference:
        assert loss(c) <= min(loss(c * factor) for factor in (0.5, 0.9, 1.1, 2.0)) + 1e-6
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows[:5]]
    answers = [encode_chat(tokenizer, row["prompt"] + row["chosen"])[0][len(p) :] for row, p in zip(rows, prompts)]
    head = scores_of(load_scalar(out), [p + a for p, a in zip(prompts, answers)], 128)
    naive = []
    for p, a in zip(prompts, answers):
        with torch.no_grad():
            logits = chat_model(torch.tensor([p + a]))[0].log_softmax(-1)
        naive.append(sum(float(logits[len(p) - 1 + t, token]) for t, token in enumerate(a)) / len(a))
    expected = head + model.coefficient * torch.tensor(naive)
    torch.testing.assert_close(model.score(prompts, answers, 128), expected, atol=1e-4, rtol=1e-4)


def test_the_safety_term_is_cross_entropy_over_labelled_answers_alone() -> None:
    """Pairs nobody labelled add nothing; a naive loop over the labelled answers is the oracle."""
    labels = [(True, False), None, (False, False), (True, True)]
    batch = [Pair([1], [2], (1, 1), 0, safe) for safe in labels]
    r_chosen, r_rejected = torch.tensor([1.5, 9.0, -0.5, 0.2]), torch.tensor([-1.0, -9.0, 0.7, 2.0])
    naive = 0.0
    for safe, *scores in zip(labels, r_chosen.tolist(), r_rejected.tolist()):
        for is_safe, score in zip(safe or (), scores):
            p_safe = 1 / (1 + math.exp(-score))
            naive -= math.log(p_safe if is_safe else 1 - p_safe)
    assert float(_safety_term(batch, r_chosen, r_rejected)) == pytest.approx(naive, rel=1e-5)
    assert float(_safety_term(batch[1:2], r_chosen[1:2], r_rejected[1:2])) == 0.0


@pytest.mark.parametrize(("steps", "warmup"), [(50, 5), (1000, 30), (1001, 31)])
def test_the_papers_warmup_is_three_percent_and_at_least_five_steps(steps: int, warmup: int) -> None:
    settings = RewardSettings(warmup_share=0.03)
    assert _warmed_up(settings, steps).optimizer.warmup_steps == warmup
    assert _warmed_up(RewardSettings(), steps).optimizer.warmup_steps == RewardSettings().optimizer.warmup_steps


SETTINGS = {"row_len": 128, "batch_pairs": 16, "optimizer": {"lr": 1e-3}}


def report_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "accuracy.json").read_text())


@pytest.fixture(scope="module")
def guard(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guard") / "guard"
    run(RewardSettings(**SETTINGS), "guard", smoke_run / "sft", [], out, seed=0, data=smoke_run / "data")
    return out


def test_the_guard_is_trained_and_tested_on_open_pairs(smoke_run: Path, guard: Path) -> None:
    report = report_of(guard)
    rows = read_preferences(smoke_run / "data" / "preferences_open.jsonl")
    assert {row["set"] for row in report["accuracy_by_set"]} <= {"open helpful", "open safety", "probes"}
    n_open = sum(row["n"] for row in report["accuracy_by_set"] if row["set"] != "probes")
    assert report["accuracy"]["n"] == n_open
    assert 0.1 * len(rows) <= n_open <= 0.1 * len(rows) + 3, "a tenth is held out"
    assert sum(row["n"] for row in report["accuracy_by_strength"]) == n_open
    assert report["accuracy_by_domain"] == []
    assert report["ratings"]["n"] == 40, "the guard is set against all ratings"
    assert not (guard / "gate.json").exists()
    assert (guard / "model.safetensors").read_bytes() != (
        smoke_run / "v1_reward_helpfulness" / "model.safetensors"
    ).read_bytes()


def test_a_recipe_that_asks_for_a_guard_gets_one(smoke_run: Path, guard: Path, tmp_path: Path) -> None:
    """Trained once from the SFT model on the data's open set, and listed among the run's reward models."""
    recipe = load_recipe(SMOKE).model_copy(update={"guard": RewardSettings(**SETTINGS)})
    run_of = Run(recipe, tmp_path, models={"sft": smoke_run / "sft"})
    train_guard(run_of, smoke_run / "data")
    assert run_of.guard == tmp_path / "reward_guard"
    assert run_of.reward_models == [("guard", run_of.guard)]
    assert (run_of.guard / "model.safetensors").read_bytes() == (guard / "model.safetensors").read_bytes()
    assert load_reward_model(run_of.guard).score([[5, 6]], [[7, 8]], 128).shape == (1,)


def test_every_model_of_a_run_is_measured_on_the_same_open_pairs(smoke_run: Path, guard: Path) -> None:
    """Tested on what the guard holds out, though it was not trained on any open pair itself."""
    held_out = {row["set"]: row["n"] for row in report_of(guard)["accuracy_by_set"] if row["set"].startswith("open")}
    report = report_of(smoke_run / "v1_reward_helpfulness")
    assert held_out == {row["set"]: row["n"] for row in report["accuracy_by_set"] if row["set"].startswith("open")}
    assert "open helpful" not in {row["domain"] for row in report["accuracy_by_domain"]}


def test_a_report_holds_together(smoke_run: Path) -> None:
    """Every breakdown of a safety model counts the same held-out pairs and the same hits."""
    report = report_of(smoke_run / "v2_reward_safety")
    n, hits = report["accuracy"]["n"], report["accuracy"]["value"] * report["accuracy"]["n"]
    rows = [
        row
        for name in ("v1_preferences", "v2_preferences")
        for row in read_preferences(smoke_run / name / "held_out.jsonl")
        if row["prompt_kind"] == "safety"
    ]
    assert n == len(rows) > 0
    for key in ("accuracy_by_strength", "accuracy_by_annotator", "accuracy_by_safety"):
        assert sum(row["n"] for row in report[key]) == n, key
        assert sum((row["value"] or 0) * row["n"] for row in report[key]) == pytest.approx(hits), key
    assert {row["annotator"] for row in report["accuracy_by_annotator"]} == {row["annotator"] for row in rows}
    assert report["calibration"]["n"] == sum(bin["observed"]["n"] for bin in report["calibration"]["bins"]) == n
    assert report["baselines"]["all"]["longer"]["n"] == n
    unsafe = sum({"chosen_only": 1, "neither": 2}.get(row["safety"], 0) for row in rows)
    assert report["unsafe_at_half"]["recall"]["n"] == unsafe


@pytest.fixture
def threads_of_the_smoke_run() -> Iterator[None]:
    """One, as recipes/smoke.yaml says: equal to the bit is promised for a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_of_the_smoke_run")
def test_open_pairs_change_the_helpfulness_model_only_where_asked(smoke_run: Path, tmp_path: Path) -> None:
    """`open: true` trains on them; the mix `both` without a safety label's loss trains on every own pair."""
    given = (smoke_run / "sft", [smoke_run / "v1_preferences"])
    weights = {}
    for name, values in {"paper": {}, "open": {"open": True}, "both": {"mix": "both"}}.items():
        out = tmp_path / name
        run(RewardSettings(**SETTINGS, **values), "helpfulness", *given, out, seed=1, data=smoke_run / "data")
        weights[name] = (out / "model.safetensors").read_bytes()
    assert len(set(weights.values())) == 3
    assert weights["paper"] == (smoke_run / "v1_reward_helpfulness" / "model.safetensors").read_bytes()


def test_open_pairs_that_are_not_there_are_named(smoke_run: Path, tmp_path: Path) -> None:
    settings = RewardSettings(**SETTINGS, open=True)
    with pytest.raises(ValueError, match=r"there is no preferences_open\.jsonl to train on"):
        run(settings, "helpfulness", smoke_run / "sft", [smoke_run / "v1_preferences"], tmp_path / "o", seed=0)
    with pytest.raises(ValueError, match=r"no preference with source 'open' left to train the guard model on"):
        run(settings.model_copy(update={"open": False}), "guard", smoke_run / "sft", [smoke_run / "v1_preferences"],
            tmp_path / "o", seed=0)  # fmt: skip
    assert not (tmp_path / "o").exists()
