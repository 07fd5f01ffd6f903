"""Where a model looks: how much of an answer's attention falls on some earlier tokens (paper fig. 10).

    a_lht = sum_{s in S} softmax_s(q_t k_s / sqrt(d))        of layer l, head h, query t; s <= t

A plain softmax over the model's own projections, since no attention kernel gives its weights away.
Shape letters: L layers, H heads, T tokens, S keys looked at, N spans of queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ayni.engine.batch import eval_mode
from ayni.model.transformer import Layer, Transformer


@torch.no_grad()
def attention_on(
    model: Transformer, ids: Sequence[int], keys: slice, queries: Sequence[slice]
) -> Float[Tensor, "L H N"]:
    """The share of attention on the tokens `keys`, averaged over the tokens of each span of `queries`.

    ValueError if the text is longer than the model's context.
    """
    T = len(ids)
    if model.settings.max_seq_len < T:
        raise ValueError(f"a text of {T} tokens is longer than the model's context of {model.settings.max_seq_len}")
    device = model.tok_embeddings.weight.device
    future_TT = torch.ones(T, T, dtype=torch.bool, device=device).triu(1)
    found = []
    with eval_mode(model):
        h_1TD = model.tok_embeddings(torch.tensor([list(ids)], device=device))
        cos, sin = (x.to(h_1TD.dtype) for x in model.rotation(None, T))
        for layer in model.layers:
            assert isinstance(layer, Layer)
            q_1THd, k_1TKd, v_1TKd = layer.before_attention(h_1TD, cos, sin)
            q_HTd, k_KTd = q_1THd[0].transpose(0, 1).float(), k_1TKd[0].transpose(0, 1).float()
            k_HTd = k_KTd.repeat_interleave(q_HTd.shape[0] // k_KTd.shape[0], 0)
            score_HTT = (q_HTd @ k_HTd.transpose(1, 2)) * q_HTd.shape[-1] ** -0.5
            p_HTT = score_HTT.masked_fill(future_TT, -torch.inf).softmax(-1)
            on_HT = p_HTT[:, :, keys].sum(-1)
            found.append(torch.stack([on_HT[:, span].mean(1) for span in queries], 1))
            h_1TD = layer.after_attention(h_1TD, layer.attention.attend(q_1THd, k_1TKd, v_1TKd, None))
    return torch.stack(found).cpu()
