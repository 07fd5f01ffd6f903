"""The output layer and its loss in one: chunks of tokens, so that the logits of a batch are never held whole.

    logits_c = h_c W^T      lse_c = log sum_v exp(logits_c)      log p_n = logits_n[target_n] - lse_n
    d loss / d logits_n = g_n (softmax(logits_n) - onehot(target_n)) / T

Each function is what a model's forward pass does *instead of* the output product (`head=` of `Transformer.forward`), so
that sharded weights are whole when it runs. Below `WHOLE` logits the plain product is taken: nothing is saved there.
F.linear_cross_entropy does the same, but with bf16 weights its loss is rounded to bf16 (LOG.md), so this is ours.

Shape letters: N tokens, C tokens of a chunk, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ayni.train.compiling import fused
from ayni.train.losses import entropy, log_probs, next_token_loss

WHOLE = 2**25  # logits that may be held at once: 64 MiB in bf16


def loss_of_targets(
    h_ND: Float[Tensor, "N D"], weight_VD: Float[Tensor, "V D"], targets_N: Int[Tensor, " N"], fuse: bool = False
) -> Float[Tensor, ""]:
    """-sum_n log p_n (paper 2.2 and 3.1) in fp32; gradients are made on the way, three matrix products in all.

    `fuse`: the work between the products is compiled into one loop (`train/compiling.py`).
    """
    if _small(h_ND, weight_VD):
        return next_token_loss(F.linear(h_ND, weight_VD), targets_N)
    return cast(Tensor, _Loss.apply(h_ND, weight_VD, targets_N, fuse))


def log_probs_of_targets(
    h_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    targets_N: Int[Tensor, " N"],
    temperature: float = 1.0,
    fuse: bool = False,
) -> Float[Tensor, " N"]:
    """log softmax(logits / T)[target] per token, differentiable; logits are made again in the backward pass."""
    if _small(h_ND, weight_VD):
        return log_probs(F.linear(h_ND, weight_VD), targets_N, temperature)
    return cast(Tensor, _LogProbs.apply(h_ND, weight_VD, targets_N, temperature, fuse))


@torch.no_grad()
def log_probs_and_entropy(
    h_ND: Float[Tensor, "N D"], weight_VD: Float[Tensor, "V D"], targets_N: Int[Tensor, " N"], temperature: float = 1.0
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """(log p_n, entropy of softmax(logits_n / T)), without gradients."""
    parts = []
    for h_CD, target_C in zip(*_chunks(weight_VD, h_ND, targets_N)):
        logits_CV = F.linear(h_CD, weight_VD)
        parts.append((log_probs(logits_CV, target_C, temperature), entropy(logits_CV, temperature)))
    logp, entropies = zip(*parts)
    return torch.cat(logp), torch.cat(entropies)


def _small(h_ND: Tensor, weight_VD: Tensor) -> bool:
    return len(h_ND) * len(weight_VD) <= WHOLE


def _chunks(weight_VD: Tensor, *tensors: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    size = max(1, WHOLE // len(weight_VD))
    return tuple(tensor.split(size) for tensor in tensors)


def _log_prob_chunk(logits_CV: Tensor, target_C1: Tensor, temperature: float) -> Tensor:
    wide_CV = logits_CV.float() / temperature
    return wide_CV.gather(1, target_C1).squeeze(1) - wide_CV.logsumexp(1)


def _logit_gradient(logits_CV: Tensor, target_C1: Tensor, g_C: Tensor, temperature: float) -> Tensor:
    """g_n (onehot(target_n) - softmax(logits_n / T)) / T, in the logits' own type."""
    p_CV = torch.softmax(logits_CV.float() / temperature, 1)
    hit_CV = torch.arange(logits_CV.shape[1], device=logits_CV.device) == target_C1
    return ((hit_CV.float() - p_CV) * (g_C / temperature).unsqueeze(1)).to(logits_CV.dtype)


def _log_probs_and_gradient(logits_CV: Tensor, target_C1: Tensor, g_C: Tensor) -> tuple[Tensor, Tensor]:
    return _log_prob_chunk(logits_CV, target_C1, 1.0), _logit_gradient(logits_CV, target_C1, g_C, 1.0)


class _Loss(torch.autograd.Function):
    """Forward makes the gradients for an incoming gradient of 1; backward scales them."""

    @staticmethod
    def forward(ctx: Any, h_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, fuse: bool) -> Tensor:
        chunk = fused(_log_probs_and_gradient) if fuse else _log_probs_and_gradient
        logp, gradient = [], _Gradient(h_ND, weight_VD, ctx.needs_input_grad)
        for h_CD, target_C in zip(*_chunks(weight_VD, h_ND, targets_N)):
            minus_C = h_CD.new_full((len(h_CD),), -1.0, dtype=torch.float32)
            logp_C, dlogits_CV = chunk(F.linear(h_CD, weight_VD), target_C.unsqueeze(1), minus_C)
            logp.append(logp_C)
            gradient.add(h_CD, dlogits_CV)
        ctx.gradient = gradient
        return -torch.cat(logp).sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        dh_ND, dweight_VD = ctx.gradient.total()
        if float(g) != 1.0:
            dh_ND, dweight_VD = (None if d is None else d * g.to(d.dtype) for d in (dh_ND, dweight_VD))
        return dh_ND, dweight_VD, None, None


class _LogProbs(torch.autograd.Function):
    """What comes back is one number per token, known only later: the backward pass makes each chunk's logits again."""

    @staticmethod
    def forward(ctx: Any, h_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, temperature: float, fuse: bool) -> Tensor:
        ctx.save_for_backward(h_ND, weight_VD, targets_N)
        ctx.temperature, ctx.fuse = temperature, fuse
        chunk = fused(_log_prob_chunk) if fuse else _log_prob_chunk
        return torch.cat(
            [
                chunk(F.linear(h_CD, weight_VD), target_C.unsqueeze(1), temperature)
                for h_CD, target_C in zip(*_chunks(weight_VD, h_ND, targets_N))
            ]
        )

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        h_ND, weight_VD, targets_N = ctx.saved_tensors
        chunk = fused(_logit_gradient) if ctx.fuse else _logit_gradient
        gradient = _Gradient(h_ND, weight_VD, ctx.needs_input_grad)
        for h_CD, target_C, g_C in zip(*_chunks(weight_VD, h_ND, targets_N, g_N)):
            gradient.add(h_CD, chunk(F.linear(h_CD, weight_VD), target_C.unsqueeze(1), g_C, ctx.temperature))
        return *gradient.total(), None, None, None


class _Gradient:
    """dh_ND = dlogits W and dW = dlogits^T h, chunk by chunk; what needs no gradient costs nothing."""

    def __init__(self, h_ND: Tensor, weight_VD: Tensor, needed: tuple[bool, ...]) -> None:
        self.weight_VD = weight_VD
        self.needs_h, self.needs_weight = needed[:2]
        self.dh: list[Tensor] = []
        self.dweight_VD: Tensor | None = None

    def add(self, h_CD: Tensor, dlogits_CV: Tensor) -> None:
        if self.needs_h:
            self.dh.append(dlogits_CV @ self.weight_VD)
        if self.needs_weight and self.dweight_VD is None:
            self.dweight_VD = dlogits_CV.t() @ h_CD
        elif self.needs_weight and self.dweight_VD is not None:
            self.dweight_VD.addmm_(dlogits_CV.t(), h_CD)

    def total(self) -> tuple[Tensor | None, Tensor | None]:
        return torch.cat(self.dh) if self.needs_h else None, self.dweight_VD
