"""Attention as compiled layers have it, its way back written by hand, beside torch's own in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ayni.model.transformer import QUERY_BLOCK, fused_attention

LENGTHS = (1, 7, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK + 30)


def heads_of(B: int, H: int, K: int, T: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(T)
    return [torch.randn(B, n, T, 8, generator=generator, dtype=torch.float64).to(dtype) for n in (H, K, K)]


def with_gradients(attention: object, tensors: list[Tensor], direction: Tensor) -> list[Tensor]:
    given = [tensor.clone().requires_grad_() for tensor in tensors]
    out = attention(*given)
    return [out.detach(), *torch.autograd.grad(out, given, direction.to(out.dtype))]


def packed_mask(B: int, T: int, cut: int) -> Tensor:
    """Causal, and two sequences a row, the second from `cut` on."""
    second_T = torch.arange(T) >= cut
    same_TT = second_T[:, None] == second_T
    return (torch.ones(T, T, dtype=torch.bool).tril() & same_TT).expand(B, 1, T, T)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize(("H", "K"), [(6, 6), (6, 2), (6, 1)], ids=["multi-head", "grouped", "multi-query"])
@pytest.mark.parametrize("packed", [False, True])
def test_values_and_gradients_are_those_of_torch(T: int, H: int, K: int, packed: bool) -> None:
    mask = packed_mask(2, T, T // 3) if packed else None
    tensors = heads_of(2, H, K, T, torch.float64)
    direction = torch.randn(2, H, T, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def wanted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)

    def mine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fused_attention(q, k, v, mask)

    # Scores are fp32 whatever comes in.
    for got, right in zip(with_gradients(mine, tensors, direction), with_gradients(wanted, tensors, direction)):
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


def test_bf16_loses_no_more_than_the_rounding_of_scores() -> None:
    T = LENGTHS[-1]
    tensors = heads_of(1, 6, 2, T, torch.bfloat16)
    direction = torch.randn(1, 6, T, 8, generator=torch.Generator().manual_seed(1)).bfloat16()

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    exact = with_gradients(plain, [tensor.double() for tensor in tensors], direction)
    torch_s = with_gradients(plain, tensors, direction)
    ours = with_gradients(lambda q, k, v: fused_attention(q, k, v, None), tensors, direction)
    for mine, theirs, right in zip(ours, torch_s, exact):
        error, flash = ((x.double() - right).norm() / right.norm() for x in (mine, theirs))
        assert error < 2.5 * flash  # whose scores stay in fp32
        assert error < 2 * 2**-8  # bf16 has 8 bits


def test_large_scores_neither_overflow_nor_vanish() -> None:
    q, k, v = (200 * tensor for tensor in heads_of(1, 2, 2, 40, torch.float32))
    mine = fused_attention(q, k, v, None)
    torch.testing.assert_close(mine, scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-4, atol=1e-3)
