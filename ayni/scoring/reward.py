"""The two reward models as one scorer: the paper's gated reward (3.2.3), in score space (TRAPS 4).

    R_c(g | p) = R_s(g | p)  if p is tagged as a safety prompt or sigmoid(R_s(g | p)) < threshold,  else  R_h(g | p)

The paper's threshold is 0.15; ours is chosen on held-out safety pairs by the reward stage, since 0.15 means nothing for a
model that is not calibrated. Where there is no safety model, R_c is R_h. To compare with: `gate: sum` takes R_s + R_h,
`gate: helpfulness` R_h alone.

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
from ayni.config import Gate
from ayni.engine.answers import Answer
from ayni.engine.score import log_probs_of, scores_of
from ayni.model.checkpoint import load_model, load_scalar
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.telemetry import ProgressBar
from ayni.train.losses import gated

GATE = "gate.json"
LIKELIHOOD = "likelihood"  # in a reward model's directory: the chat model of the likelihood term
COEFFICIENT = "likelihood.json"


@dataclass(frozen=True)
class Scorers:
    """The reward-model directories of a version; None: no safety model, hence no gate.

    `guard`: a model that PPO's held-out answers are scored with and nothing is trained on, to see over-optimisation.
    """

    helpfulness: Path
    safety: Path | None
    guard: Path | None = None


@dataclass(frozen=True)
class RewardModel:
    """A scalar head, and where it has one its likelihood term."""

    head: ScalarHead
    chat_model: Transformer | None = None
    coefficient: float = 0.0

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[list[int]],
        answers: Sequence[list[int]],
        row_len: int,
        bar: ProgressBar | None = None,
    ) -> Tensor:
        """Raw scores [N], read at each answer's last token. Too long a prompt loses its beginning. `bar` counts answers."""
        cut = [prompt[-max(1, row_len - len(answer)) :] for prompt, answer in zip(prompts, answers)]
        kept = [answer[: row_len - 1] for answer in answers]
        score_N = scores_of(self.head, [prompt + answer for prompt, answer in zip(cut, kept)], row_len, bar)
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
    gated: Tensor  # R_c, the two made one as the setting `gate` says
    by_safety: Tensor  # bool: the gate takes the safety score (told under every setting, so that branches compare)


@dataclass(frozen=True)
class RewardModels:
    helpfulness: RewardModel
    safety: RewardModel | None
    threshold: float  # probability of being safe below which the safety score takes over
    gate: Gate = "gated"
    guard: RewardModel | None = None

    def of_answers(self, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[Answer]], row_len: int) -> Rewards:
        """Scores of all answers to all prompt rows, flattened in order."""
        flat = [answer for samples in answers for answer in samples]
        helpfulness_M = score_answers(self.helpfulness, flat, row_len)
        if self.safety is None:
            none_M = torch.zeros_like(helpfulness_M)
            return Rewards(helpfulness_M, none_M, helpfulness_M, none_M.bool())
        safety_M = score_answers(self.safety, flat, row_len)
        tagged_M = torch.tensor(
            [row["prompt_kind"] == "safety" for row, samples in zip(rows, answers) for _ in samples]
        )
        gated_M = gated(safety_M, helpfulness_M, tagged_M, self.threshold)
        one_M = {"gated": gated_M, "sum": helpfulness_M + safety_M, "helpfulness": helpfulness_M}[self.gate]
        return Rewards(helpfulness_M, safety_M, one_M, tagged_M | (gated_M != helpfulness_M))


def score_answers(model: RewardModel, answers: Sequence[Answer], row_len: int) -> Tensor:
    """Raw scores [M]; rows are made longer where an answer needs it, so that none loses its prompt's beginning."""
    row_len = max(row_len, *(len(answer.prompt_ids) + len(answer.ids) for answer in answers))
    return model.score([answer.prompt_ids for answer in answers], [answer.ids for answer in answers], row_len)


def load_reward_models(scorers: Scorers, gate: Gate = "gated") -> RewardModels:
    """Reads both models, the safety model's chosen threshold, and the guard model where one is named."""
    if gate == "sum" and scorers.safety is None:
        raise ValueError(
            "gate sum adds two reward models: give a safety model too (--safety), or take gate=helpfulness"
        )
    helpfulness = load_reward_model(scorers.helpfulness)
    guard = load_reward_model(scorers.guard) if scorers.guard is not None else None
    if scorers.safety is None:
        return RewardModels(helpfulness, None, 0.0, gate, guard)
    threshold = float(read_json(scorers.safety / GATE)["threshold"])
    return RewardModels(helpfulness, load_reward_model(scorers.safety), threshold, gate, guard)
