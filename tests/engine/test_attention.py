"""Attention on chosen tokens against loops over single numbers."""

import math

import pytest
import torch

from ayni.config import ModelSettings
from ayni.engine.attention import attention_on
from ayni.model.transformer import Transformer, init_weights


def model(n_layers: int, **settings: int) -> Transformer:
    made = Transformer(
        ModelSettings(vocab_size=40, dim=16, n_layers=n_layers, n_heads=4, n_kv_heads=2, ffn_dim=24, max_seq_len=32, **settings)
    )  # fmt: skip
    init_weights(made, seed=1, std=0.5)
    return made


def test_one_layer_equals_a_loop_over_heads_queries_and_keys() -> None:
    one, ids, keys, spans = model(1), [3, 9, 4, 4, 17, 30, 2, 8], slice(1, 3), [slice(3, 5), slice(6, 8)]
    layer = one.layers[0]
    x = layer.attention_norm(one.tok_embeddings(torch.tensor(ids)))
    cos, sin = one.cos[: len(ids)], one.sin[: len(ids)]

    def turned(vector: torch.Tensor, position: int) -> list[float]:
        half = len(vector) // 2
        c, s = cos[position, :half], sin[position, half:]
        a, b = vector[:half], vector[half:]
        return [*(a * c - b * s).tolist(), *(b * c + a * s).tolist()]

    q, k = layer.attention.wq(x).view(len(ids), 4, 4), layer.attention.wk(x).view(len(ids), 2, 4)
    for head in range(4):
        on = []
        for t in range(len(ids)):
            query = turned(q[t, head], t)
            scores = [sum(a * b for a, b in zip(query, turned(k[s, head // 2], s))) / 2 for s in range(t + 1)]
            total = sum(map(math.exp, scores))
            on.append(sum(math.exp(scores[s]) for s in range(t + 1) if keys.start <= s < keys.stop) / total)
        expected = [sum(on[span]) / len(on[span]) for span in spans]
        assert attention_on(one, ids, keys, spans)[0, head].tolist() == pytest.approx(expected, abs=1e-5)


def test_all_attention_is_one_and_none_falls_on_the_future() -> None:
    deep, ids = model(3), list(range(12))
    assert torch.allclose(attention_on(deep, ids, slice(0, 12), [slice(4, 9)]), torch.ones(3, 4, 1))
    assert torch.equal(attention_on(deep, ids, slice(9, 12), [slice(4, 9)]), torch.zeros(3, 4, 1))
    parts = [attention_on(deep, ids, keys, [slice(8, 12)]) for keys in (slice(0, 5), slice(5, 12))]
    assert torch.allclose(parts[0] + parts[1], torch.ones(3, 4, 1))


def test_a_text_beyond_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="33 tokens is longer than the model's context of 32"):
        attention_on(model(1), [1] * 33, slice(0, 1), [slice(1, 2)])
