"""The two reward models as one scorer: the paper's gated reward (3.2.3), in score space (TRAPS 4).

    R_c(g | p) = R_s(g | p)  if p is tagged as a safety prompt or sigmoid(R_s(g | p)) < threshold,  else  R_h(g | p)

The paper's threshold is 0.15; ours is chosen on held-out safety pairs by the reward stage, since 0.15 means nothing for a
model that is not calibrated. Where there is no safety model, R_c is R_h.

A small reward model does not see whether a value is true, though the chat model it started from does: an optional term
adds that model's mean log-probability per answer token (paper silent; our choice, `likelihood` in the settings).

    R_h(g | p) = w . h(p, g) + c / |g| sum_t log pi_chat(g_t | p, g_<t)
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayni.artifacts import read_json
from ayni.engine.answers import Answer
from ayni.engine.score import log_probs_of, scores_of
from ayni.model.checkpoint import load_model, load_scalar
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.train.losses import gated

GATE = "gate.json"
LIKELIHOOD = "likelihood"  # in a reward model's directory: the chat model of the likelihood term
COEFFICIENT = "likelihood.json"


@dataclass(frozen=True)
class Scorers:
    """The reward-model directories of a version; None: no safety model, hence no gate."""

    helpfulness: Path
    safety: Path | None


@dataclass(frozen=True)
class RewardModel:
    """A scalar head, and where it has one its likelihood term."""

    head: ScalarHead
    chat_model: Transformer | None = None
    coefficient: float = 0.0

    @torch.no_grad()
    def score(self, prompts: Sequence[list[int]], answers: Sequence[list[int]], row_len: int) -> Tensor:
        """Raw scores [N], read at each answer's last token. Too long a prompt loses its beginning."""
        cut = [prompt[-max(1, row_len - len(answer)) :] for prompt, answer in zip(prompts, answers)]
        kept = [answer[: row_len - 1] for answer in answers]
        score_N = scores_of(self.head, [prompt + answer for prompt, answer in zip(cut, kept)], row_len)
        if self.chat_model is None:
            return score_N
        return score_N + self.coefficient * mean_log_prob(self.chat_model, cut, kept, row_len)


def mean_log_prob(
    model: Transformer, prompts: Sequence[list[int]], answers: Sequence[list[int]], row_len: int
) -> Tensor:
    """1 / |g| sum_t log pi(g_t | p, g_<t) for each answer g, [N]: how expected it is, whatever its length."""
    return torch.stack([logp_L.mean() for logp_L in log_probs_of(model, prompts, answers, 1.0, row_len)])


def copy_parts(source: Path, target: Path) -> None:
    """What a reward model of ours has beside its weights: the gate's threshold and the likelihood term."""
    for name in (GATE, COEFFICIENT):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / LIKELIHOOD).is_dir():
        shutil.copytree(source / LIKELIHOOD, target / LIKELIHOOD)


def load_reward_model(directory: Path) -> RewardModel:
    """Reads a `LlamaForSequenceClassification` directory, and its likelihood term if it has one."""
    if not (directory / COEFFICIENT).is_file():
        return RewardModel(load_scalar(directory, "auto"))
    coefficient = float(read_json(directory / COEFFICIENT)["coefficient"])
    return RewardModel(load_scalar(directory, "auto"), load_model(directory / LIKELIHOOD, "auto"), coefficient)


@dataclass(frozen=True)
class Rewards:
    """Raw scores of M answers, in score space."""

    helpfulness: Tensor
    safety: Tensor
    gated: Tensor
    by_safety: Tensor  # bool: the safety score was taken


@dataclass(frozen=True)
class RewardModels:
    helpfulness: RewardModel
    safety: RewardModel | None
    threshold: float  # probability of being safe below which the safety score takes over

    def of_answers(self, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[Answer]], row_len: int) -> Rewards:
        """Scores of all answers to all prompt rows, flattened in order."""
        flat = [answer for samples in answers for answer in samples]
        prompts, ids = [answer.prompt_ids for answer in flat], [answer.ids for answer in flat]
        row_len = max(row_len, *(len(prompt) + len(answer) for prompt, answer in zip(prompts, ids)))
        helpfulness_M = self.helpfulness.score(prompts, ids, row_len)
        if self.safety is None:
            none_M = torch.zeros_like(helpfulness_M)
            return Rewards(helpfulness_M, none_M, helpfulness_M, none_M.bool())
        safety_M = self.safety.score(prompts, ids, row_len)
        tagged_M = torch.tensor(
            [row["prompt_kind"] == "safety" for row, samples in zip(rows, answers) for _ in samples]
        )
        gated_M = gated(safety_M, helpfulness_M, tagged_M, self.threshold)
        return Rewards(helpfulness_M, safety_M, gated_M, tagged_M | (gated_M != helpfulness_M))


def load_reward_models(scorers: Scorers) -> RewardModels:
    """Reads both models and the safety model's chosen threshold."""
    helpfulness = load_reward_model(scorers.helpfulness)
    if scorers.safety is None:
        return RewardModels(helpfulness, None, 0.0)
    gate = read_json(scorers.safety / GATE)
    return RewardModels(helpfulness, load_reward_model(scorers.safety), float(gate["threshold"]))
