"""Two reward models made one: the paper's gate, their sum, or the helpfulness model alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ayni.config import Gate
from ayni.engine.answers import Answer
from ayni.scoring.reward import RewardModels, Scorers, load_reward_models

SAFETY, HELPFULNESS = [3.0, -4.0, -1.0, 2.0], [0.5, 9.0, 1.5, -7.0]
KINDS = ["helpful", "helpful", "helpful", "safety"]


@dataclass(frozen=True)
class Fixed:
    """A reward model that gives answer number n its n-th score."""

    scores: list[float]

    def score(self, prompts: Any, answers: list[list[int]], row_len: int) -> Tensor:
        return torch.tensor([self.scores[ids[0]] for ids in answers])


def scored(gate: Gate, safety: Fixed | None = Fixed(SAFETY)) -> Any:
    models = RewardModels(Fixed(HELPFULNESS), safety, 0.15, gate)  # type: ignore[arg-type]
    answers = [[Answer([1], [n], "", True, [0.0])] for n in range(4)]
    return models.of_answers([{"prompt_kind": kind} for kind in KINDS], answers, 8)


def test_the_gate_takes_safety_where_tagged_or_below_the_threshold() -> None:
    raw = scored("gated")
    assert raw.gated.tolist() == [0.5, -4.0, 1.5, 2.0]
    assert raw.by_safety.tolist() == [False, True, False, True]


def test_sum_and_helpfulness_alone_tell_the_gates_branches_all_the_same() -> None:
    assert scored("sum").gated.tolist() == [3.5, 5.0, 0.5, -5.0]
    assert scored("helpfulness").gated.tolist() == HELPFULNESS
    for gate in ("sum", "helpfulness"):
        assert scored(gate).by_safety.tolist() == [False, True, False, True]
        assert scored(gate).safety.tolist() == SAFETY


def test_without_a_safety_model_the_reward_is_helpfulness_and_a_sum_is_refused(tmp_path: Path) -> None:
    assert scored("gated", None).gated.tolist() == HELPFULNESS
    with pytest.raises(ValueError, match="give a safety model too"):
        load_reward_models(Scorers(tmp_path, None), "sum")
