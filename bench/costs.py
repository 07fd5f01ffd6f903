"""What work must cost, counted by hand: FLOPs of forward and backward passes, bytes that decoding must read.

A product of [m, k] and [k, n] is 2mkn FLOPs. Attention is counted as causal: half of the T x T scores. Norms, RoPE and
softmax are not counted, so a share of the roofline computed from this is a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ayni.config import ModelSettings

BACKWARD = 2  # the backward pass costs twice the forward: gradients of inputs and of weights


def matrix_parameters(settings: ModelSettings, head: bool = True) -> int:
    """Weights that every token is multiplied with: all but the embedding's look-up (a tied output counts, once)."""
    D, d = settings.dim, settings.d_head
    attention = 2 * D * settings.n_heads * d + 2 * D * settings.n_kv_heads * d
    layer = attention + 3 * D * settings.ffn_dim
    return settings.n_layers * layer + (settings.vocab_size * D if head else 0)


def forward_flops(settings: ModelSettings, lengths: Iterable[int], head: bool = True) -> float:
    """One forward pass over sequences of these lengths, each attending to itself alone."""
    width = settings.n_heads * settings.d_head
    tokens, scores = 0, 0.0
    for length in lengths:
        tokens += length
        scores += length * length / 2
    return 2.0 * tokens * matrix_parameters(settings, head) + 4.0 * settings.n_layers * width * scores


def training_flops(settings: ModelSettings, lengths: Iterable[int]) -> float:
    """Forward and backward pass, nothing computed twice; the optimizer's FLOPs are not worth counting."""
    return (1 + BACKWARD) * forward_flops(settings, lengths)


def cache_bytes(settings: ModelSettings, tokens: float, element_size: int) -> float:
    """Keys and values of that many cached tokens."""
    return 2.0 * settings.n_layers * settings.n_kv_heads * settings.d_head * tokens * element_size


def weight_bytes(model: nn.Module) -> int:
    """Parameters and persistent buffers as they lie in memory, shared ones once: what one decoding step reads.

    The embedding counts only where the output shares it: of a table of its own a token reads one row.
    """
    held = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("tok_embeddings.weight")}
    tensors: dict[int, Tensor] = {tensor.data_ptr(): tensor for tensor in held.values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
