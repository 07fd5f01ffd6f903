"""The two reward models as one scorer: the paper's gated reward (3.2.3), in score space (TRAPS 4).

    R_c(g | p) = R_s(g | p)  if p is tagged as a safety prompt or R_s(g | p) < threshold,  else  R_h(g | p)

The paper's threshold 0.15 is a probability, -1.73 as a score; ours is chosen on held-out safety pairs by the reward
stage, since 0.15 means nothing for a model that is not calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayni.artifacts import read_json
from ayni.engine.answers import Answer
from ayni.engine.score import scores_of
from ayni.model.checkpoint import load_scalar
from ayni.model.heads import ScalarHead
from ayni.train.losses import gated

GATE = "gate.json"


@dataclass(frozen=True)
class Scorers:
    """The two reward-model directories of a version."""

    helpfulness: Path
    safety: Path


@dataclass(frozen=True)
class Rewards:
    """Raw scores of M answers, in score space."""

    helpfulness: Tensor
    safety: Tensor
    gated: Tensor
    by_safety: Tensor  # bool: the safety score was taken


@dataclass(frozen=True)
class RewardModels:
    helpfulness: ScalarHead
    safety: ScalarHead
    threshold: float  # probability of being safe below which the safety score takes over

    @torch.no_grad()
    def of_answers(self, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[Answer]], row_len: int) -> Rewards:
        """Scores of all answers to all prompt rows, flattened in order, each read at its answer's last token."""
        sequences = [answer.prompt_ids + answer.ids for samples in answers for answer in samples]
        tagged = [row["prompt_kind"] == "safety" for row, samples in zip(rows, answers) for _ in samples]
        row_len = max(row_len, max(map(len, sequences)))
        helpfulness_M = scores_of(self.helpfulness, sequences, row_len)
        safety_M = scores_of(self.safety, sequences, row_len)
        gated_M = gated(safety_M, helpfulness_M, torch.tensor(tagged), self.threshold)
        return Rewards(
            helpfulness_M, safety_M, gated_M, torch.tensor(tagged) | (torch.sigmoid(safety_M) < self.threshold)
        )


def load_reward_models(helpfulness: Path, safety: Path) -> RewardModels:
    """Reads the two `LlamaForSequenceClassification` directories and the safety model's chosen threshold."""
    gate = read_json(safety / GATE)
    return RewardModels(load_scalar(helpfulness), load_scalar(safety), float(gate["threshold"]))
