"""Typed settings: what a recipe may say, and nothing else.

Every class refuses keys it does not know, so a typing error in a recipe is an error at once (TRAPS: "unknown key"),
never a silently ignored wish. Units stand in the field names or comments: lengths and budgets are in tokens.
Numbers that differ from the paper's are scaled for small models; the paper's stand in the docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Settings):
    """A Llama 2 architecture (paper 2.2): pre-norm RMSNorm, SwiGLU, RoPE, grouped-query attention, no biases."""

    vocab_size: int = 2048
    dim: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2  # == n_heads: multi-head; 1: multi-query
    ffn_dim: int = 352
    head_dim: int | None = None  # None: dim // n_heads
    max_seq_len: int = 512
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    tie_embeddings: bool = False

    @property
    def d_head(self) -> int:
        return self.head_dim or self.dim // self.n_heads

    @model_validator(mode="after")
    def _divisible(self) -> ModelSettings:
        if self.head_dim is None and self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of n_heads {self.n_heads}; set head_dim")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        return self


def ffn_dim(dim: int, multiplier: float = 1.0, multiple_of: int = 256) -> int:
    """SwiGLU width of Meta's released parameters: 2/3 of 4*dim, scaled, rounded up to a multiple."""
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


PRESETS: dict[str, ModelSettings] = {
    "tiny": ModelSettings(tie_embeddings=True),
    "7b": ModelSettings(vocab_size=32_000, dim=4096, n_layers=32, n_heads=32, n_kv_heads=32, ffn_dim=ffn_dim(4096), max_seq_len=4096),
    "13b": ModelSettings(vocab_size=32_000, dim=5120, n_layers=40, n_heads=40, n_kv_heads=40, ffn_dim=ffn_dim(5120), max_seq_len=4096),
    "34b": ModelSettings(vocab_size=32_000, dim=8192, n_layers=48, n_heads=64, n_kv_heads=8, ffn_dim=22_016, max_seq_len=4096),
    "70b": ModelSettings(vocab_size=32_000, dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, ffn_dim=ffn_dim(8192, 1.3, 4096), max_seq_len=4096),
}  # fmt: skip


class OptimizerSettings(Settings):
    """AdamW as in the paper (2.2): betas 0.9 / 0.95, eps 1e-5, weight decay 0.1, gradient clip 1.0."""

    lr: float = 3e-4  # peak
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr_share: float = 0.1  # cosine ends at this share of the peak
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-5
    weight_decay: float = 0.1
    clip: float = 1.0
