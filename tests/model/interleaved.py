"""Meta's way of computing Llama, apart from ours: complex numbers over neighbouring pairs, keys repeated, one row."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.config import ModelSettings


def draw_meta_weights(s: ModelSettings, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names and in the row order of Meta's releases."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return 0.25 * torch.randn(rows, columns, generator=generator)

    def norm() -> Tensor:
        return 1 + 0.2 * torch.randn(s.dim, generator=generator)

    kv = s.n_kv_heads * s.d_head
    weights = {"tok_embeddings.weight": matrix(s.vocab_size, s.dim), "norm.weight": norm()}
    for i in range(s.n_layers):
        weights |= {
            f"layers.{i}.attention.wq.weight": matrix(s.dim, s.dim),
            f"layers.{i}.attention.wk.weight": matrix(kv, s.dim),
            f"layers.{i}.attention.wv.weight": matrix(kv, s.dim),
            f"layers.{i}.attention.wo.weight": matrix(s.dim, s.dim),
            f"layers.{i}.feed_forward.w1.weight": matrix(s.ffn_dim, s.dim),
            f"layers.{i}.feed_forward.w2.weight": matrix(s.dim, s.ffn_dim),
            f"layers.{i}.feed_forward.w3.weight": matrix(s.ffn_dim, s.dim),
            f"layers.{i}.attention_norm.weight": norm(),
            f"layers.{i}.ffn_norm.weight": norm(),
        }
    weights["output.weight"] = weights["tok_embeddings.weight"] if s.tie_embeddings else matrix(s.vocab_size, s.dim)
    return weights


def meta_logits(w: Mapping[str, Tensor], s: ModelSettings, tokens_T: Tensor) -> Tensor:
    """logits_TV of one row, after the equations of Meta's model.py."""
    T, d = len(tokens_T), s.d_head
    frequency = s.rope_theta ** -(torch.arange(0, d, 2).double() / d)
    turn_T1d = torch.polar(torch.ones(1).double(), torch.outer(torch.arange(T).double(), frequency)).unsqueeze(1)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + s.norm_eps) * weight.double()

    def turned(x_THd: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x_THd.reshape(T, -1, d // 2, 2).contiguous())
        return torch.view_as_real(pairs * turn_T1d).reshape(x_THd.shape)

    future = torch.full((T, T), -math.inf).triu(1)
    h = w["tok_embeddings.weight"].double()[tokens_T]
    for i in range(s.n_layers):
        part = {name: w[f"layers.{i}.{name}.weight"].double() for name in (
            "attention.wq", "attention.wk", "attention.wv", "attention.wo", "feed_forward.w1", "feed_forward.w2",
            "feed_forward.w3", "attention_norm", "ffn_norm")}  # fmt: skip
        x = norm(h, part["attention_norm"])
        q = turned((x @ part["attention.wq"].T).view(T, s.n_heads, d))
        k = turned((x @ part["attention.wk"].T).view(T, s.n_kv_heads, d)).repeat_interleave(
            s.n_heads // s.n_kv_heads, 1
        )
        v = (x @ part["attention.wv"].T).view(T, s.n_kv_heads, d).repeat_interleave(s.n_heads // s.n_kv_heads, 1)
        weight_HTS = torch.softmax(torch.einsum("thd,shd->hts", q, k) / math.sqrt(d) + future, -1)
        h = h + torch.einsum("hts,shd->thd", weight_HTS, v).reshape(T, -1) @ part["attention.wo"].T
        x = norm(h, part["ffn_norm"])
        gate = F.silu(x @ part["feed_forward.w1"].T) * (x @ part["feed_forward.w3"].T)
        h = h + gate @ part["feed_forward.w2"].T
    return norm(h, w["norm.weight"]) @ w["output.weight"].double().T
