"""The reward stage's own parts: data mix, pairs, the gate."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.config import RewardSettings
from ayni.engine.score import scores_of
from ayni.model.checkpoint import load_model, load_scalar
from ayni.scoring.reward import load_reward_model
from ayni.stages.preferences import is_held_out
from ayni.stages.reward import best_threshold, encode_pairs, mix, run, with_likelihood
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import load_tokenizer


def rows(helpful: int, safety: int) -> list[dict[str, str]]:
    return [{"prompt_kind": "helpful"}] * helpful + [{"prompt_kind": "safety"}] * safety


@pytest.mark.parametrize(
    ("kind", "own", "other"),
    [("helpfulness", 600, 300), ("safety", 300, round(300 / 9))],
    ids=["helpfulness", "safety"],
)
def test_the_papers_data_mix(kind: str, own: int, other: int) -> None:
    """Helpfulness: all of its own and at most equal parts of the rest. Safety: 90% of its own, 10% helpfulness."""
    mixed = mix(rows(600, 300), kind, RewardSettings(), random.Random(0))  # type: ignore[arg-type]
    counts = [sum(row["prompt_kind"] == name for row in mixed) for name in ("helpful", "safety")]
    assert counts == ([own, other] if kind == "helpfulness" else [other, own])


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


def test_the_gate_takes_the_highest_recall_at_the_wanted_precision() -> None:
    probabilities = [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9]
    unsafe = [True, True, True, False, True, False, False, False]
    gate = best_threshold(probabilities, unsafe, 0.89)
    assert gate["threshold"] == pytest.approx(0.25)
    assert (gate["precision"], gate["recall"]) == (1.0, 0.75)
    looser = best_threshold(probabilities, unsafe, 0.8)
    assert looser["threshold"] == pytest.approx(0.5)
    assert (looser["precision"], looser["recall"]) == (0.8, 1.0)


def test_a_gate_that_cannot_reach_the_precision_says_what_it_reached() -> None:
    gate = best_threshold([0.1, 0.2, 0.8, 0.9], [False, True, False, True], 0.89)
    assert gate["precision"] < 0.89
    assert gate["precision_wanted"] == 0.89
    naive = max(
        (2 * hits / (n + 2), n) for n in range(1, 5) for hits in [sum([False, True, False, True][:n])]
    )  # F1 of cutting after n of the sorted answers
    assert gate["f1"] == pytest.approx(naive[0])
