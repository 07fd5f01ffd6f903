"""From logits to a token: temperature, top-p, and the inverse of the cumulative distribution at a given uniform.

Shape letters: B rows, V vocabulary, N blocks of W neighbouring tokens (V = N * W after padding with zeros).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

W = 64
COLD = 1e-30  # temperatures below it are 0: logits / T would overflow


def sample(
    logits_BV: Float[Tensor, "B V"],
    temperature_B: Float[Tensor, " B"],
    top_p_B: Float[Tensor, " B"],
    uniform_B: Float[Tensor, " B"],
    banned_id: int | None = None,
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """ids_B with P(id) = softmax(logits / T), and log_softmax(logits / T)[id]; T = 0 takes the largest logit.

    The log-probability is that of the *full* distribution (TRAPS 1), whatever top-p or `banned_id` (padding, which no
    answer may hold) cut away: PPO samples with top_p = 1, and its policy, old policy and reference are scored in full.
    At T = 0 it is log_softmax(logits)[id].
    """
    greedy_B = temperature_B < COLD
    p_BV = torch.softmax(_scaled(logits_BV, temperature_B), 1)
    drowned_B = None  # rows where rounding leaves the banned token alone
    if banned_id is not None:
        if bool((p_BV[:, banned_id] == 1).any()):
            drowned_B = p_BV[:, banned_id] == 1
            p_BV[drowned_B] = torch.softmax(_without(logits_BV[drowned_B], banned_id, temperature_B[drowned_B]), 1)
        p_BV[:, banned_id] = 0  # the others keep their share of the full distribution
    if bool(greedy_B.all()):
        id_B = p_BV.argmax(1)
    else:
        kept_BV = nucleus(p_BV, top_p_B) if bool((top_p_B < 1).any()) else p_BV
        id_B = inverse_cdf(kept_BV, uniform_B)
        if bool(greedy_B.any()):
            id_B = torch.where(greedy_B, p_BV.argmax(1), id_B)
    logprob_B = p_BV.gather(1, id_B.unsqueeze(1)).squeeze(1).log()
    if drowned_B is not None:
        full_BV = torch.log_softmax(_scaled(logits_BV, temperature_B), 1)
        logprob_B = torch.where(drowned_B, full_BV.gather(1, id_B.unsqueeze(1)).squeeze(1), logprob_B)
    return id_B, logprob_B


def top_log_probs(
    logits_BV: Float[Tensor, "B V"], temperature_B: Float[Tensor, " B"], k: int
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """The k largest of log_softmax(logits / T) and their ids, in descending order; T = 0 reads as in `sample`."""
    return torch.log_softmax(_scaled(logits_BV, temperature_B), 1).topk(k, dim=1)


def _scaled(logits_BV: Tensor, temperature_B: Tensor) -> Tensor:
    return logits_BV.float() / torch.where(temperature_B < COLD, 1.0, temperature_B).unsqueeze(1)


def _without(logits_BV: Tensor, banned_id: int, temperature_B: Tensor) -> Tensor:
    kept_BV = logits_BV.float().index_fill(1, torch.tensor([banned_id], device=logits_BV.device), -torch.inf)
    return _scaled(kept_BV, temperature_B)


def nucleus(p_BV: Float[Tensor, "B V"], top_p_B: Float[Tensor, " B"]) -> Float[Tensor, "B V"]:
    """Zero but for the smallest set of likeliest tokens whose mass reaches top_p (the likeliest always stays)."""
    ranked_BV, order_BV = p_BV.sort(dim=1, descending=True, stable=True)
    before_BV = ranked_BV.cumsum(1, dtype=torch.float64) - ranked_BV
    kept_BV = before_BV < top_p_B.unsqueeze(1) * p_BV.sum(1, keepdim=True)
    kept_BV[:, 0] = True  # a top_p too small for fp32 reads as 0
    ranked_BV = ranked_BV * kept_BV
    return torch.zeros_like(p_BV).scatter_(1, order_BV, ranked_BV)


def inverse_cdf(weight_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The first id with u * sum(w) < w_0 + .. + w_id; u in [0, 1). Never one of weight 0.

    In two steps, since a cumulative sum over the whole vocabulary is the slowest part of sampling: first the block of
    W ids, by the blocks' masses, then the id within. Running sums are in float64.
    """
    B, V = weight_BV.shape
    block_BNW = (F.pad(weight_BV, (0, -V % W)) if V % W else weight_BV).view(B, -1, W)
    edge_BN = block_BNW.sum(2).double().cumsum(1)
    target_B1 = _below(uniform_B.double().unsqueeze(1) * edge_BN[:, -1:], edge_BN)
    block_B1 = torch.searchsorted(edge_BN, target_B1, right=True)
    rest_B1 = target_B1 - F.pad(edge_BN, (1, 0)).gather(1, block_B1)
    inner_BW = block_BNW[torch.arange(B, device=weight_BV.device), block_B1.squeeze(1)].double().cumsum(1)
    return (block_B1 * W + torch.searchsorted(inner_BW, _below(rest_B1, inner_BW), right=True)).squeeze(1)


def _below(target_B1: Tensor, edge_BN: Tensor) -> Tensor:
    """At most the last number under the total: rounding must not carry a target past the last id that has weight."""
    return torch.minimum(target_B1, torch.nextafter(edge_BN[:, -1:], torch.zeros_like(target_B1)))
