"""Small random models whose weights are large enough that a wrong detail shows in the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ayni.config import ModelSettings
from ayni.model import ScalarHead, Transformer, init_weights


def settings(n_kv_heads: int = 2, tied: bool = False, **changes: object) -> ModelSettings:
    base = {"vocab_size": 300, "dim": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": n_kv_heads, "ffn_dim": 80,
            "max_seq_len": 128, "tie_embeddings": tied}  # fmt: skip
    return ModelSettings(**(base | changes))


def language_model(n_kv_heads: int = 2, tied: bool = False, **changes: object) -> Transformer:
    model = Transformer(settings(n_kv_heads, tied, **changes))
    init_weights(model, seed=1, std=0.25)
    shake_norms(model)
    return model


def scalar_model() -> ScalarHead:
    model = ScalarHead.from_language_model(language_model())
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(2))
    return model


def shake_norms(model: torch.nn.Module) -> None:
    """Norm weights of 1 would hide a forgotten multiplication."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(8, 300, (rows, length), generator=torch.Generator().manual_seed(seed))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
