"""The recipe's losses: pure functions of tensors, one per equation of the paper (Llama 2, arXiv 2307.09288).

Shape letters: N tokens, V vocabulary, B pairs or sequences, T tokens of a sequence; *S any shape, the same throughout.
Losses are *sums* (or one value per pair): the caller divides by the token count of the whole global minibatch, over
micro-batches and ranks, so that neither accumulation nor sharding changes the result. Metrics are masked sums too.
Response tokens are t = 0..e with e the EOS or the last token; mask m_t = [t <= e].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MarginKind = Literal["none", "small", "large"]

# Table 27, by strength 0..3: negligibly better or unsure, slightly better, better, significantly better.
MARGINS: dict[str, tuple[float, float, float, float]] = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "small": (0.0, 1 / 3, 2 / 3, 1.0),
    "large": (0.0, 1.0, 2.0, 3.0),
}


# ---- language modelling ---------------------------------------------------------------------------------------------


def next_token_loss(logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Sum over tokens of -log softmax(logits)[target] (paper 2.2 and 3.1), in fp32."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="sum")


def log_probs(
    logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, " N"], temperature: float = 1.0
) -> Float[Tensor, " N"]:
    """log softmax(logits / T)[target]. Policy, old policy and reference are all scored with the T that sampled."""
    logits_NV = logits_NV.float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    return -F.cross_entropy(logits_NV, targets_N, reduction="none")


def entropy(logits_NV: Float[Tensor, "N V"], temperature: float = 1.0) -> Float[Tensor, " N"]:
    """H = -sum_v p_v log p_v of p = softmax(logits / T), per token. Give it response tokens only."""
    logp_NV = F.log_softmax(logits_NV.float() / temperature, dim=-1)
    return -(logp_NV.exp() * logp_NV).sum(-1)


# ---- reward models (paper 3.2.2) --------------------------------------------------------------------------------------


def margin(strength_B: Int[Tensor, " B"], kind: MarginKind) -> Float[Tensor, " B"]:
    """m(r) of equation 2 by preference strength (Table 27). The paper does not say which scale its models used."""
    return torch.tensor(MARGINS[kind], device=strength_B.device)[strength_B]


def preference_loss(
    r_chosen_B: Float[Tensor, " B"], r_rejected_B: Float[Tensor, " B"], margin_B: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """-log sigmoid(r(x, y_c) - r(x, y_r) - m(r)), one value per pair (equation 2)."""
    # [B] minus [B, 1] would broadcast to [B, B] and train on every pair against every other, without a word.
    assert r_chosen_B.shape == r_rejected_B.shape == margin_B.shape, "scores and margins must all be [B]"
    assert r_chosen_B.dim() == 1, f"one score per pair, got {list(r_chosen_B.shape)}"
    return F.softplus(margin_B - (r_chosen_B - r_rejected_B))


def safety_loss(score_B: Float[Tensor, " B"], is_safe_B: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The safety model's auxiliary loss: binary cross-entropy of sigmoid(score) = P(answer is safe), one per answer.

    The paper names the loss (3.2.2) but neither its form nor its weight: cross-entropy on the same scalar is our
    choice, so that sigmoid(score) is the probability the gate's threshold speaks of.
    """
    assert score_B.shape == is_safe_B.shape, "one label per score"
    return F.binary_cross_entropy_with_logits(score_B, is_safe_B.to(score_B.dtype), reduction="none")


# ---- direct preference optimisation (Rafailov et al. 2023; not in the paper) --------------------------------------------


def implicit_reward(logp_B: Float[Tensor, " B"], ref_logp_B: Float[Tensor, " B"], beta: float) -> Float[Tensor, " B"]:
    """beta (log pi(y|x) - log pi_ref(y|x)): the reward, up to a term of x, for which pi is the optimum of equation 4."""
    return beta * (logp_B - ref_logp_B)


def dpo_loss(
    logp_chosen_B: Float[Tensor, " B"],
    logp_rejected_B: Float[Tensor, " B"],
    ref_chosen_B: Float[Tensor, " B"],
    ref_rejected_B: Float[Tensor, " B"],
    margin_B: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, " B"]:
    """-log sigmoid(beta [(log pi(y_c) - log pi_ref(y_c)) - (log pi(y_r) - log pi_ref(y_r))] - m), one value per pair.

    Log-probabilities are sums over an answer's tokens. Equation 2 with implicit rewards; DPO itself has no margin (m = 0).
    """
    r_chosen_B = implicit_reward(logp_chosen_B, ref_chosen_B, beta)
    return preference_loss(r_chosen_B, implicit_reward(logp_rejected_B, ref_rejected_B, beta), margin_B)


# ---- reinforcement learning (paper 3.2.3; GAE, value head and whitening scope: paper silent) ----------------------------


def gated(
    score_safety_B: Float[Tensor, " B"],
    score_help_B: Float[Tensor, " B"],
    is_safety_B: Bool[Tensor, " B"],
    threshold: float = 0.15,
) -> Float[Tensor, " B"]:
    """R_c = R_s if the prompt is tagged safety or R_s < threshold, else R_h; all in score space.

    The threshold is a probability. logit(sigmoid(s)) = s, so the gate is s < logit(threshold), and what comes out is
    the raw score that the paper whitens: `whiten(logit(R_c))`.
    """
    cut = torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()
    return torch.where(is_safety_B | (score_safety_B < cut), score_safety_B, score_help_B)


def whiten(
    x: Float[Tensor, "*S"],
    mask: Bool[Tensor, "*S"] | None = None,
    shift_mean: bool = True,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "*S"]:
    """(x - mean) / sqrt(var + 1e-8) over the elements in the mask; elements outside come out as 0.

    `all_reduce` sums a tensor over ranks, so that mean and variance are those of the whole global batch. Population
    variance; with `shift_mean` False only the scale changes (both: paper silent).
    """
    weight = torch.ones_like(x) if mask is None else mask.to(x.dtype)
    total = all_reduce or (lambda tensor: tensor)
    x = torch.where(weight > 0, x, 0.0)
    count, sum_x = total(torch.stack([weight.sum(), x.sum()])).unbind()
    mean = sum_x / count
    variance = total(((x - mean).square() * weight).sum()) / count
    centred = x - mean if shift_mean else x
    return centred * torch.rsqrt(variance + 1e-8) * weight


def k1(logp: Float[Tensor, "*S"], ref_logp: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """log pi - log pi_0 per token: unbiased, unclamped, the one that stands in the reward."""
    return logp - ref_logp


def k3(logp: Float[Tensor, "*S"], ref_logp: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """exp(-k1) - 1 + k1 >= 0 per token: the same expectation with less variance, for reports."""
    difference = logp - ref_logp
    return torch.expm1(-difference) + difference


def token_rewards(
    kl_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    end_B: Int[Tensor, " B"],
    reward_B: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, "B T"]:
    """r_t = -beta (log pi - log pi_0)_t m_t + [t = e] R~: equation 4's R with the penalty spread over tokens."""
    rows_B = torch.arange(len(end_B), device=end_B.device)
    assert mask_BT[rows_B, end_B].all(), "the end must be a response token, never e + 1 or padding"
    rewards_BT = torch.where(mask_BT, -beta * kl_BT, 0.0)
    rewards_BT[rows_B, end_B] += reward_B
    return rewards_BT


def gae(
    rewards_BT: Float[Tensor, "B T"],
    values_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap_B: Float[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Advantages and returns: delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lambda A_{t+1}, R = A + V.

    V after e is 0, or `bootstrap_B` for an answer that was cut by length (0 for those that ended). Carry and next value
    move only where m_t = 1, so padding on either side, or between two answers, changes nothing. Zero outside the mask.
    Paper silent.
    """
    advantages_BT = torch.zeros_like(rewards_BT)
    carry_B = torch.zeros_like(rewards_BT[:, 0])
    next_value_B = carry_B if bootstrap_B is None else bootstrap_B
    for t in reversed(range(rewards_BT.shape[1])):
        mask_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        carry_B = torch.where(mask_B, delta_B + gamma * lam * carry_B, carry_B)
        next_value_B = torch.where(mask_B, values_BT[:, t], next_value_B)
        advantages_BT[:, t] = torch.where(mask_B, carry_B, 0.0)
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def ppo_policy_loss(
    logp: Float[Tensor, "*S"],
    old_logp: Float[Tensor, "*S"],
    advantages: Float[Tensor, "*S"],
    mask: Bool[Tensor, "*S"],
    clip: float = 0.2,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Sum over response tokens of -min(rho A, clip(rho, 1 - c, 1 + c) A), rho = pi / pi_old.

    Also sums over the same tokens: `clip_share` (tokens where the clip binds), `ratio`, `kl_old` (k3 against pi_old).
    """
    log_ratio = torch.where(mask, logp - old_logp, 0.0)
    advantages = torch.where(mask, advantages, 0.0)
    ratio = log_ratio.exp()
    free, clipped = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    with torch.no_grad():
        stats = {
            "clip_share": (clipped < free).sum(),
            "ratio": torch.where(mask, ratio, 0.0).sum(),
            "kl_old": (ratio - 1 - log_ratio).sum(),
        }
    return -torch.minimum(free, clipped).sum(), stats


def value_loss(
    values: Float[Tensor, "*S"],
    old_values: Float[Tensor, "*S"],
    returns: Float[Tensor, "*S"],
    mask: Bool[Tensor, "*S"],
    clip: float | None = 0.2,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Sum over response tokens of 1/2 max((V - R)^2, (clip(V, V_old +- c) - R)^2); clip None: plain squared error.

    Also sums `value_error` = (V - R)^2 over the same tokens. Paper silent.
    """
    error = torch.where(mask, values - returns, 0.0).square()
    worst = error
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        worst = torch.maximum(error, torch.where(mask, near - returns, 0.0).square())
    return 0.5 * worst.sum(), {"value_error": error.detach().sum()}
