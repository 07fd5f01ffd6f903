"""Weights in int8 for few rows at a time: a single stream is bound by how fast weights are read, and these are half as long.

    W_oi ~ s_o q_oi,   s_o = max_i |W_oi| / 127 (as bf16 has it),   q_oi = round(W_oi / s_o) in -127..127

Weights only: activations stay bf16, and so does the embedding, of which a token reads one row. From about 8 rows a step bf16
weights are faster (LOG.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ayni.model.transformer import Transformer

BLOCK = 64  # the kernel reads past the end of matrices whose sides are no multiple of its block: those stay in bf16


class Int8Linear(nn.Module):
    """x W^T with W [out, in] in int8, one scale per output; x and the result in bf16."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight_oi: Tensor) -> None:
        super().__init__()
        assert fits(weight_oi), f"{tuple(weight_oi.shape)} is not made of blocks of {BLOCK}"
        largest_o = weight_oi.float().abs().amax(1).clamp(min=1e-12)
        scale_o = (largest_o / 127).bfloat16()  # rounded first: the whole numbers then make up for it
        whole_oi = (weight_oi.float() / scale_o.float().unsqueeze(1)).round().clamp(-127, 127)
        self.register_buffer("weight", whole_oi.to(torch.int8))
        self.register_buffer("scale", scale_o)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale)
        return out.view(*x.shape[:-1], -1)


def fits(weight_oi: Tensor) -> bool:
    return all(side % BLOCK == 0 for side in weight_oi.shape)


@torch.no_grad()
def int8_copy(model: Transformer) -> Transformer:
    """The model with its matrix products in int8 and all else in bf16; the model given is left as it is."""
    with torch.device("meta"):
        copy = Transformer(model.settings)
    weights = model.state_dict()
    kept = {  # shared with the model where it works in bf16 already
        name: value.bfloat16() for name, value in weights.items() if name.endswith(("norm.weight", "embeddings.weight"))
    }
    for name, module in list(copy.named_modules()):
        if isinstance(module, nn.Linear) and not fits(weights[f"{name}.weight"]):
            kept[f"{name}.weight"] = weights[f"{name}.weight"].bfloat16()
        elif isinstance(module, nn.Linear):
            parent, _, last = name.rpartition(".")
            setattr(copy.get_submodule(parent), last, Int8Linear(weights[f"{name}.weight"]))
    copy.load_state_dict(kept, strict=False, assign=True)
    cos, sin = model.cos, model.sin
    copy.register_buffer("cos", cos, persistent=False)
    copy.register_buffer("sin", sin, persistent=False)
    return copy.eval()
