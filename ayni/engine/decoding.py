"""One decoding step of a layer as compiled code: every running row gives one token, attention over the used length only.

    q, k, v = norm(x) W;   K_r[p_r] = k_r, V_r[p_r] = v_r;   o_r = sum_s softmax(q_r K_r^T / sqrt(d))_s V_rs,   s <= p_r

The same layers, weights and cache as the eager step; what changes is that the work between two matrix products is one
loop, and that one query per row is a fused reduction rather than a call of a kernel made for many. Sums run in an order
that the row's own length decides, so a row's result does not depend on its neighbours (`KEYS` in batch.py). Weights are read where
they lie: they may be changed in place between steps.

Shape letters: R rows, L slots of the cache, S keys, C positions of a slot, D width, H query heads, K key/value heads, g = H / K, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config as shapes

from ayni.engine.cache import KVCache
from ayni.model.transformer import Layer, Transformer, rotate
from ayni.train.compiling import compiled


def decode_step(model: Transformer, tokens_R1: Tensor, position_R1: Tensor, cache: KVCache) -> Tensor:
    """logits_R1V of the next token, as `model(tokens_R1, position_R1, mask_R1S, cache)` computes them eagerly."""
    x_R1D = model.tok_embeddings(tokens_R1)
    cos, sin = (table.to(x_R1D.dtype) for table in model.rotation(position_R1, 1))
    key_S = torch.arange(cache.used, device=x_R1D.device)
    position_R = position_R1.squeeze(1)
    # What varies from step to step. Sizes that happen to be equal mean nothing, hence no duck shapes: so one compilation
    # serves any number of rows, keys and slots. A single row is a compilation of its own.
    for tensor in (x_R1D, cos, sin, position_R, key_S):
        _varies(tensor, 0)
    with shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        for index, layer in enumerate(model.layers):
            k_LKCd, v_LKCd = cache.k[index], cache.v[index]
            for tensor in (k_LKCd, v_LKCd) if index == 0 else ():
                _varies(tensor, 0, 2)
            x_R1D = _compiled()(layer, x_R1D, cos, sin, k_LKCd, v_LKCd, position_R, key_S)
    assert model.output is not None
    return model.output(model.norm(x_R1D))


def decode_layer(
    layer: Layer,
    x_R1D: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_LKCd: Tensor,
    v_LKCd: Tensor,
    position_R: Tensor,
    key_S: Tensor,
) -> Tensor:
    """x_R1D after the layer; the new keys and values are written in place, at each row's position of its slot."""
    attention, R, S = layer.attention, x_R1D.shape[0], key_S.shape[0]
    K, d = k_LKCd.shape[1], k_LKCd.shape[3]
    normed_R1D = layer.attention_norm(x_R1D)
    q_RKgd = rotate(attention.wq(normed_R1D).view(R, 1, -1, d), cos, sin).view(R, K, -1, d)
    row_R = torch.arange(R, device=x_R1D.device)
    k_LKCd[row_R, :, position_R] = rotate(attention.wk(normed_R1D).view(R, 1, K, d), cos, sin)[:, 0]
    v_LKCd[row_R, :, position_R] = attention.wv(normed_R1D).view(R, K, d)
    k_RKSd, v_RKSd = k_LKCd[:R, :, :S], v_LKCd[:R, :, :S]
    hidden_R1S = (key_S > position_R.unsqueeze(1)).unsqueeze(1)
    heads = []
    for q_RKd in (q_RKgd * d**-0.5).unbind(2):  # the heads that share a key head, one by one
        score_RKS = (q_RKd.unsqueeze(2).float() * k_RKSd.float()).sum(-1)
        p_RKS = torch.softmax(score_RKS.masked_fill(hidden_R1S, -torch.inf), -1)
        heads.append((p_RKS.unsqueeze(-1) * v_RKSd.float()).sum(2).to(x_R1D.dtype))
    x_R1D = x_R1D + attention.wo(torch.stack(heads, 2).view(R, 1, -1))
    return x_R1D + layer.feed_forward(layer.ffn_norm(x_R1D))


def _varies(tensor: Tensor, *dims: int) -> None:
    for dim in dims:
        if tensor.shape[dim] > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, dim)


@cache
def _compiled() -> Callable[..., Any]:
    # Rotated queries are to be written down, not computed again for each of the S keys.
    return compiled(decode_layer, options={"realize_opcount_threshold": 10})
