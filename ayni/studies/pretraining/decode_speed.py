"""How fast models that differ in their key/value heads alone decode, as batch and context grow.

    bytes of the cache = 2 * layers * rows * kv heads * positions * head width * bytes of a number

A decoding step reads the whole cache once, so its size is what a step costs once batch times context is large. Weights
are random: the time does not depend on them. Models take turns, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from ayni.config import ModelSettings
from ayni.engine.cache import KVCache
from ayni.model.transformer import Transformer, init_weights

STEPS = 3  # of a timing, after one that is not counted


def ffn_of_equal_size(settings: ModelSettings, n_kv_heads: int) -> int:
    """The SwiGLU width that keeps a layer's parameters when it gets so many key/value heads.

    2 D K d + 3 D F = 2 D K' d + 3 D F'    D width, K key/value heads, d width of a head, F of the SwiGLU
    """
    return settings.ffn_dim + round(2 * settings.d_head * (settings.n_kv_heads - n_kv_heads) / 3)


def with_kv_heads(settings: ModelSettings, n_kv_heads: int) -> ModelSettings:
    """The same model, equal in parameters (to a thousandth), with so many key/value heads."""
    ffn_dim = ffn_of_equal_size(settings, n_kv_heads)
    return ModelSettings(**{**settings.model_dump(), "n_kv_heads": n_kv_heads, "ffn_dim": ffn_dim})


def cache_bytes(settings: ModelSettings, rows: int, context: int, bytes_of_a_number: int = 4) -> int:
    """Of keys and values of `rows` rows of `context` tokens."""
    return 2 * settings.n_layers * rows * settings.n_kv_heads * context * settings.d_head * bytes_of_a_number


@torch.inference_mode()
def tokens_per_second(
    models: Mapping[str, ModelSettings], batches: Sequence[int], contexts: Sequence[int], repeats: int
) -> dict[tuple[str, int, int], list[float]]:
    """(model, context, batch) -> new tokens per second, `repeats` times in turn, the last token of a full context."""
    built = {}
    for name, settings in models.items():
        built[name] = Transformer(settings).eval()
        init_weights(built[name], 0)
    speeds: dict[tuple[str, int, int], list[float]] = {}
    for context in contexts:
        for rows in batches:
            for _ in range(repeats):
                for name, model in built.items():
                    speed = rows * STEPS / _seconds(model, rows, context)
                    speeds.setdefault((name, context, rows), []).append(speed)
    return speeds


def _seconds(model: Transformer, rows: int, context: int) -> float:
    """Of `STEPS` decoding steps, each at the last position of the context."""
    cache = KVCache(model.settings, rows, context, like=model.tok_embeddings.weight)
    tokens_R1 = torch.arange(rows)[:, None]
    position_R = torch.full((rows,), context - 1)
    for step in range(STEPS + 1):
        if step == 1:
            started = time.perf_counter()
        cache.begin(position_R, context)
        model(tokens_R1, position_R[:, None], None, cache)
    return time.perf_counter() - started
