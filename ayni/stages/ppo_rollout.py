"""PPO's rollout (paper 3.2.3): answers from the live policy, scored and turned into advantages and returns; its figures.

    r_t = -beta (log pi - log pi_0)_t + [t = e] R~_c        A_t = sum_k (gamma lambda)^k delta_{t+k}       R_t = A_t + V_t

All log-probabilities come from the training forward at the sampling temperature; how far the engine's own are from them
is among the figures. The loop around it is `ppo.py`.

Shape letters: B answers, L answer tokens, N answer tokens of all packed rows, M those and one position after each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ayni.config import PPOSettings
from ayni.engine.answers import Answer, row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.scoring.reward import RewardModels, Rewards, score_answers
from ayni.text.tokenizer import Tokenizer
from ayni.train.compiling import wanted
from ayni.train.losses import gae, k1, k3, token_rewards, whiten
from ayni.train.mesh import Mesh
from ayni.train.output import log_probs_and_entropy, log_probs_of_targets
from ayni.train.ppo_objective import Experience, pack_answers, padded


@dataclass(frozen=True)
class Players:
    """Who takes part: the policy and its critic learn, the reference and the reward models stay as they are."""

    settings: PPOSettings
    tokenizer: Tokenizer
    policy: Transformer
    critic: ScalarHead
    reference: Transformer
    rewards: RewardModels
    seed: int


def rollout(
    players: Players, rows: Sequence[dict[str, Any]], iteration: int
) -> tuple[list[Experience], dict[str, float]]:
    """One answer to each prompt, scored and turned into advantages and returns."""
    settings = players.settings
    answers = sample(players, rows, seed=row_seed(players.seed, f"rollout-{iteration}"))
    raw = players.rewards.of_answers(rows, [[answer] for answer in answers], settings.row_len)
    ended_B = torch.tensor([answer.ended for answer in answers])
    # Over the whole rollout batch; raw scores are logged, for whitening hides drift (TRAPS 5).
    reward_B = whiten(raw.gated) if settings.whiten == "batch" else raw.gated
    if settings.truncation == "penalise":
        reward_B = reward_B - settings.truncation_penalty * (~ended_B).float()

    with torch.no_grad():
        passes = [_forward_all(players, chunk) for chunk in _chunks(answers, settings.minibatch)]
    logp_BL, ref_BL, value_BL, entropy_BL = (_rows(tensors) for tensors in zip(*(p[:4] for p in passes)))
    after_B = torch.cat([p[4] for p in passes])
    length_B = torch.tensor([len(answer.ids) for answer in answers])
    mask_BL = torch.arange(logp_BL.shape[1]) < length_B[:, None]

    kl_BL = k1(logp_BL, ref_BL)
    reward_BL = token_rewards(kl_BL, mask_BL, length_B - 1, reward_B, settings.beta)
    bootstrap_B = torch.where(ended_B, 0.0, after_B) if settings.truncation == "bootstrap" else None
    advantage_BL, return_BL = gae(reward_BL, value_BL, mask_BL, settings.gamma, settings.lam, bootstrap_B)
    whitened_BL = whiten(advantage_BL, mask_BL)

    experiences = [
        Experience(answer.prompt_ids, answer.ids, logp_BL[b, :n], value_BL[b, :n], whitened_BL[b, :n], return_BL[b, :n])
        for b, (answer, n) in enumerate(zip(answers, length_B.tolist()))
    ]
    engine_N = torch.cat([torch.tensor(answer.logprobs) for answer in answers])
    mismatch_N = (engine_N - logp_BL[mask_BL]).abs()
    figures = {
        **_by_branch(raw),
        "kl_k1": (kl_BL * mask_BL).sum(1).mean(),
        "kl_k3": (k3(logp_BL, ref_BL) * mask_BL).sum(1).mean(),
        "entropy": entropy_BL[mask_BL].mean(),
        "value_ev": explained_variance(value_BL[mask_BL], return_BL[mask_BL]),
        "mean_tokens": length_B.float().mean(),
        "eos_share": ended_B.float().mean(),
        "engine_gap": mismatch_N.mean(),
        "engine_gap_max": mismatch_N.max(),
    }
    return experiences, {name: round(float(value), 6) for name, value in figures.items()}


def held_out(players: Players, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Mean raw reward and KL on held-out prompts, always with the same draws, never the ground truth; and some answers."""
    settings, guard = players.settings, players.rewards.guard
    answers = sample(players, rows, seed=row_seed(players.seed, "held-out"))
    raw = players.rewards.of_answers(rows, [[answer] for answer in answers], settings.row_len)
    with torch.no_grad():
        passes = [_forward_all(players, chunk) for chunk in _chunks(answers, settings.minibatch)]
    kl_B = torch.cat([k1(logp_BL, ref_BL).sum(1) for logp_BL, ref_BL, *_ in passes])
    figures = {
        "heldout_reward": round(float(raw.gated.mean()), 6),
        "heldout_kl": round(float(kl_B.mean()), 6),
        "heldout_tokens": sum(len(answer.ids) for answer in answers) / len(answers),
    }
    if guard is not None:
        figures["heldout_guard"] = round(float(score_answers(guard, answers, settings.row_len).mean()), 6)
    kept = [
        {
            "id": row["id"],
            "messages": row["messages"],
            "answer": answer.text,
            "ended": answer.ended,
            "reward": round(float(raw.gated[b]), 4),
            "reward_help": round(float(raw.helpfulness[b]), 4),
            "reward_safety": round(float(raw.safety[b]), 4),
            "kl": round(float(kl_B[b]), 4),
        }
        for b, (row, answer) in enumerate(zip(rows[: settings.samples], answers))
    ]
    return figures, kept


def explained_variance(value_N: Tensor, return_N: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R): 1 is a critic that knows the returns, 0 one that knows their mean."""
    return 1 - (return_N - value_N).var() / return_N.var().clamp_min(1e-8)


def _by_branch(raw: Rewards) -> dict[str, Tensor]:
    """Mean raw scores: of all answers, and of those that either branch of the gate takes (left out where it takes none)."""
    figures = {
        "reward": raw.gated.mean(),
        "reward_help": raw.helpfulness.mean(),
        "reward_safety": raw.safety.mean(),
        "gated_to_safety": raw.by_safety.float().mean(),
    }
    if not raw.by_safety.all():
        figures["reward_help_branch"] = raw.helpfulness[~raw.by_safety].mean()
    if raw.by_safety.any():
        figures["reward_safety_branch"] = raw.safety[raw.by_safety].mean()
    return figures


def sample(players: Players, rows: Sequence[dict[str, Any]], seed: int) -> list[Answer]:
    """One answer each from the live policy, at the temperature that all log-probabilities are taken at; no top-p, no top-k."""
    settings = players.settings
    parameters = sum(parameter.numel() for parameter in players.policy.parameters())
    operations = 2.0 * parameters * settings.iterations * settings.batch * settings.max_new_tokens
    compiled = wanted(settings.compile, operations, Mesh())
    engine = Engine(players.policy, players.tokenizer, max_rows=min(512, settings.batch), compiled=compiled)
    sampled = sample_answers(
        engine,
        players.tokenizer,
        rows,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=seed,
    )
    return [answer for [answer] in sampled]


def _forward_all(players: Players, answers: Sequence[Answer]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(log pi, log pi_0, V, entropy) as [B, L] with zeros after the end, and V after the last token as [B]."""
    settings = players.settings
    packed = pack_answers([a.prompt_ids for a in answers], [a.ids for a in answers], settings.row_len)
    where = (packed.tokens_RT, packed.positions_RT, packed.attention(players.policy.tok_embeddings.weight))
    index_BL, mask_BL = packed.grid()
    asked: dict[str, Any] = {"targets_N": packed.targets_N, "temperature": settings.temperature}
    logp_N, entropy_N = players.policy(*where, keep_N=packed.predict_N, head=partial(log_probs_and_entropy, **asked))
    ref_N = players.reference(*where, keep_N=packed.predict_N, head=partial(log_probs_of_targets, **asked))
    value_M = players.critic(*where, keep_N=torch.cat([packed.predict_N, packed.ends_N]))
    value_N, after_B = value_M.split([len(packed.predict_N), len(answers)])
    logp_BL, ref_BL, value_BL, entropy_BL = (x_N[index_BL] * mask_BL for x_N in (logp_N, ref_N, value_N, entropy_N))
    return logp_BL, ref_BL, value_BL, entropy_BL, after_B


def _rows(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks [B_i, L_i] under each other, [B, max L]."""
    return padded([row for block in blocks for row in block])


def _chunks(answers: Sequence[Answer], size: int) -> list[Sequence[Answer]]:
    return [answers[start : start + size] for start in range(0, len(answers), size)]
