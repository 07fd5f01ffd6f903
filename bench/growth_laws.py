"""What each point of the growth curves should cost, from FLOPs, bytes and the machine's peaks alone.

Seconds are a lower bound: FLOPs at the GEMM peak or bytes at the read bandwidth, whichever takes longer. Memory is what must
be held: the process, weights with their optimizer state (fp32 masters, bf16 working weights), activations kept for the backward pass, keys and values; no logits.
"""

from __future__ import annotations

from ayni.config import ModelSettings
from bench.costs import cache_bytes, forward_flops, matrix_parameters, training_flops
from bench.workload import Facts

FP32, BF16 = 4, 2  # bytes
TRAINING_STATE = 4 * FP32 + BF16  # bytes per parameter: master, its gradient, two moments, working weight


def training_seconds(settings: ModelSettings, run: Facts, peaks: Facts) -> float:
    return training_flops(settings, [run["length"]] * run["rows"]) / peaks["bf16_flops"]


def sampling_seconds(settings: ModelSettings, run: Facts, peaks: Facts) -> float:
    """Prompts once, then `new_tokens` steps that read all weights once and every row's keys and values."""
    rows = run["prompts"] * run["samples"]
    prefill = forward_flops(settings, [run["prompt_length"]] * run["prompts"], head=False) / peaks["bf16_flops"]
    length = run["prompt_length"] + run["new_tokens"] / 2  # in the mean
    weights = matrix_parameters(settings)
    read = weights * BF16 + cache_bytes(settings, rows * length, BF16)
    flops = 2.0 * rows * (weights + 2 * settings.n_layers * settings.n_heads * settings.d_head * length)
    step = max(read / peaks["read_bytes"], flops / peaks["bf16_flops"])
    return prefill + run["new_tokens"] * step


def training_memory(settings: ModelSettings, run: Facts, point: Facts) -> float:
    """Kept per token and layer: the inputs of the two norms, of seven products, of the rotation and of SwiGLU, in bf16."""
    D, F = settings.dim, settings.ffn_dim
    queries, keys = settings.n_heads * settings.d_head, settings.n_kv_heads * settings.d_head
    kept = 2 * D + 2 * D + 2 * queries + 2 * keys + 3 * F
    tokens = run["rows"] * run["length"]
    return point["base_memory"] + TRAINING_STATE * point["parameters"] + BF16 * tokens * settings.n_layers * kept


def sampling_memory(settings: ModelSettings, run: Facts, point: Facts) -> float:
    rows = run["prompts"] * run["samples"]
    held = cache_bytes(settings, rows * (run["prompt_length"] + run["new_tokens"]), BF16)
    return point["base_memory"] + point["weight_bytes"] + held
