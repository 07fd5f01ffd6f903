"""Answers of a model to held-out prompts, scored by reward models: sampled here, or texts that were judged before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayni.engine.answers import encoded_answer, row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.checkpoint import load_model
from ayni.scoring.reward import Rewards, Scorers, load_reward_models
from ayni.studies.lab import Lab
from ayni.text.prompts import draw_prompts
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import load_tokenizer

Row = dict[str, Any]


@dataclass(frozen=True)
class Sampled:
    """K answers to each of N prompts and their gated rewards."""

    rows: list[Row]
    texts: list[list[str]]
    reward_NK: Tensor
    ended_NK: Tensor  # bool; False: cut by length


def best_of(
    lab: Lab, data: Path, model: Path, scorers: Scorers, *, prompts: int, k: int, temperature: float
) -> Sampled:
    """`k` answers to each of `prompts` prompts that are held out from every training set; always with the same draws."""
    rows = draw_prompts(read_prompts(data / "prompts_dev.jsonl"), 12 if lab.smoke else prompts, random.Random(lab.seed))
    tokenizer = load_tokenizer(model)
    answers = sample_answers(
        Engine(load_model(model), tokenizer),
        tokenizer,
        rows,
        n=k,
        temperature=temperature,
        max_new_tokens=lab.version.rejection.max_new_tokens,
        seed=row_seed(lab.seed, "best of k"),
    )
    rewards = load_reward_models(scorers).of_answers(rows, answers, lab.version.reward.row_len)
    ended_NK = torch.tensor([[answer.ended for answer in row] for row in answers])
    texts = [[answer.text for answer in row] for row in answers]
    return Sampled(rows, texts, rewards.gated.view(len(rows), k), ended_NK)


def rewards_of_texts(lab: Lab, scorers: Scorers, rows: Sequence[Row], texts: Sequence[str]) -> Rewards:
    """Raw scores of one text to each prompt."""
    tokenizer = load_tokenizer(scorers.helpfulness)
    answers = [[encoded_answer(tokenizer, row["messages"], text)] for row, text in zip(rows, texts, strict=True)]
    return load_reward_models(scorers).of_answers(rows, answers, lab.version.reward.row_len)
