"""A model that has learned nothing, to be tuned by a test in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ayni.config import ModelSettings
from ayni.model.checkpoint import save_model
from ayni.model.transformer import Transformer, init_weights
from ayni.text.tokenizer import load_tokenizer, train_tokenizer


def untrained(here: Path, texts: Sequence[str], vocab_size: int) -> Path:
    """HERE/start: one layer 16 wide, with a tokenizer of its own for these texts."""
    train_tokenizer(list(texts), here / "tokenizer", vocab_size=vocab_size)
    tokenizer = load_tokenizer(here / "tokenizer")
    settings = ModelSettings(
        vocab_size=tokenizer.vocab_size, dim=16, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=32, max_seq_len=192
    )
    model = Transformer(settings)
    init_weights(model, seed=0)
    (here / "start").mkdir()
    save_model(model, here / "start", tokenizer)
    return here / "start"
