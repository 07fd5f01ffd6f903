"""DPO: its objective against a naive loop over single sequences, and the stage on the smoke recipe's preferences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.config import DPOSettings, OptimizerSettings
from ayni.model.checkpoint import load_model
from ayni.model.transformer import Transformer
from ayni.stages import dpo
from ayni.text.dialogue import encode_chat
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.loop import train_step
from ayni.train.mesh import Mesh, split
from ayni.train.optimizer import make_optimizer

CPU = torch.device("cpu")
SETTINGS = DPOSettings(row_len=128, batch_pairs=16, beta=0.2)


@pytest.fixture(scope="module")
def tokenizer(smoke_run: Path) -> Tokenizer:
    return load_tokenizer(smoke_run / "sft")


@pytest.fixture(scope="module")
def rows(smoke_run: Path) -> list[dict[str, Any]]:
    return read_preferences(smoke_run / "v1_preferences" / "train.jsonl")[:12]


def naive(model: Transformer, side: dpo.Side) -> float:
    """log pi(y | x) of one answer, token by token, in a forward pass of its own."""
    with torch.no_grad():
        logp = model(torch.tensor([side.ids]))[0].double().log_softmax(-1)
    first = len(side.ids) - side.answer_tokens
    return sum(float(logp[t - 1, side.ids[t]]) for t in range(first, len(side.ids)))


def test_an_answer_is_what_the_assistant_wrote_its_end_included(
    tokenizer: Tokenizer, rows: list[dict[str, Any]]
) -> None:
    pairs, dropped = dpo.encode_pairs(tokenizer, rows, 128)
    assert len(pairs) + dropped == len(rows)
    ids, mask = encode_chat(tokenizer, rows[0]["prompt"] + rows[0]["chosen"], answers="last")
    assert pairs[0].chosen.ids == ids
    assert pairs[0].chosen.answer_tokens == sum(mask)
    assert ids[-1] == tokenizer.eos_id


@pytest.mark.parametrize(
    "changes", [{}, {"margin": "large", "likelihood_weight": 0.5}], ids=["plain", "with both terms"]
)
def test_the_packed_objective_is_the_naive_loop(
    changes: dict[str, Any], smoke_run: Path, tokenizer: Tokenizer, rows: list[dict[str, Any]]
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    policy, reference = load_model(smoke_run / "v2_ppo"), load_model(smoke_run / "sft")
    pairs = dpo.with_reference(reference, dpo.encode_pairs(tokenizer, rows, 128)[0], settings)
    loss, count, stats = dpo.dpo_objective(policy, pairs, settings, 0, CPU)
    expected, right = 0.0, 0
    for pair in pairs:
        ratio_c = naive(policy, pair.chosen) - naive(reference, pair.chosen)
        ratio_r = naive(policy, pair.rejected) - naive(reference, pair.rejected)
        m = (0, 1, 2, 3)[pair.strength] if settings.margin == "large" else 0
        expected += math.log1p(math.exp(m - settings.beta * (ratio_c - ratio_r)))
        expected -= settings.likelihood_weight * naive(policy, pair.chosen) / pair.chosen.answer_tokens
        right += ratio_c > ratio_r
    assert count == len(pairs)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert int(stats["accuracy"]) == right


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_loss_is_log_2_and_micro_batches_change_nothing(
    precision: str, smoke_run: Path, tokenizer: Tokenizer, rows: list[dict[str, Any]]
) -> None:
    """Policy and reference are the same model in the same forward pass, in bf16 too."""
    settings = SETTINGS.model_copy(update={"precision": precision})
    reference = load_model(smoke_run / "sft", settings.precision)
    pairs = dpo.with_reference(reference, dpo.encode_pairs(tokenizer, rows, 128)[0], settings)
    gradients = []
    for micro_rows in (None, 3):
        policy = load_model(smoke_run / "sft")
        optimizer = make_optimizer(policy, OptimizerSettings(lr=0.0), getattr(torch, precision))
        micro = split(pairs, Mesh(), micro_rows)
        done = train_step(policy, optimizer, micro, lambda m, b: dpo.dpo_objective(m, b, settings, 0, CPU), 0.0, Mesh())
        assert done["loss"] == pytest.approx(math.log(2), abs=1e-5)
        gradients.append(done["grad_norm"])
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4 if precision == "float32" else 0.05)


def test_dpo_learns_its_preferences_and_resumes_nothing_when_done(smoke_run: Path, tmp_path: Path) -> None:
    optimizer = OptimizerSettings(lr=2e-3, warmup_steps=2)
    settings = SETTINGS.model_copy(update={"epochs": 8, "optimizer": optimizer, "save_every": 5})
    asked = (settings, smoke_run / "sft", [smoke_run / "v1_preferences"], tmp_path / "dpo")
    made = dpo.run(*asked, seed=0)
    history = [json.loads(line) for line in (made.path / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[-1]["loss"] < 0.5
    assert history[-1]["accuracy"] > 0.8
    assert history[-1]["reward_chosen"] > history[-1]["reward_rejected"]
    report = json.loads((made.path / dpo.ACCURACY).read_text())
    assert report["accuracy"]["n"] == sum(row["n"] for row in report["accuracy_by_strength"]) > 0
    assert not dpo.run(*asked, seed=0).fresh


def test_pairs_that_cutting_makes_equal_are_refused(smoke_run: Path, tmp_path: Path) -> None:
    sides = {side: [{"role": "assistant", "content": f"{side} " + "word " * 40}] for side in ("chosen", "rejected")}
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [f"Is it {n}?" for n in range(4)], sides)
    settings = SETTINGS.model_copy(update={"row_len": 16})
    with pytest.raises(ValueError, match=r"pairs.jsonl.*equal after cutting to 16 tokens; raise row_len"):
        dpo.run(settings, smoke_run / "sft", [path], tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_a_prompt_is_trained_on_or_held_out_with_all_its_pairs(smoke_run: Path, tmp_path: Path) -> None:
    """Four pairs of one prompt: a tenth of the pairs would have tested on a prompt that was trained on."""
    path = tmp_path / "pairs.jsonl"
    write_pairs(
        path, ["Is it?"] * 4, {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    )
    with pytest.raises(ValueError, match=r"pairs.jsonl: no preference is left to train on.*give more prompts"):
        dpo.run(SETTINGS, smoke_run / "sft", [path], tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def write_pairs(path: Path, questions: list[str], sides: dict[str, Any]) -> None:
    rows = [{"prompt": [{"role": "user", "content": question}], **sides} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
