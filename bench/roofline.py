"""What the machine can do at best: GEMM peaks and memory bandwidth. Takes its turn among the sides of a workload.

.venv/bin/python -m bench.roofline
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.worker import serve

# (m, k, n): square, and SmolLM2-135M's products over 2048 tokens: attention, feed-forward both ways, output.
GEMMS = ((2048, 2048, 2048), (2048, 576, 576), (2048, 576, 1536), (2048, 1536, 576), (2048, 576, 49_152))
BIG = 2**26  # fp32 elements: 256 MiB, beyond any cache
ROWS = 2**13  # of the matrix that a product with a vector reads
SECONDS = 0.15  # that each figure is measured for, at least


def best_rate(work: float, call: Callable[[], Any]) -> float:
    """`work` per second of the fastest of the calls that fit into SECONDS (two at least), after one to warm up."""
    call()
    best, spent, calls = float("inf"), 0.0, 0
    while spent < SECONDS or calls < 2:
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        best, spent, calls = min(best, seconds), spent + seconds, calls + 1
    return work / best


def gemm_rates(dtype: torch.dtype) -> dict[str, float]:
    """FLOP/s by shape; the weight lies as nn.Linear has it, [out, in]."""
    rates = {}
    for m, k, n in GEMMS:
        x, weight = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        rates[f"{m}x{k}x{n}"] = best_rate(
            2.0 * m * k * n, lambda x=x, weight=weight: torch.nn.functional.linear(x, weight)
        )
    return rates


def bandwidths() -> dict[str, float]:
    """Bytes/s: a copy (read + write counted), a sum and a matrix times a vector (read alone)."""
    source, target = torch.ones(BIG), torch.empty(BIG)
    matrix, vector = source.view(ROWS, -1), torch.ones(BIG // ROWS)
    size = float(source.numel() * source.element_size())
    return {
        "copy": best_rate(2 * size, lambda: target.copy_(source)),
        "sum": best_rate(size, source.sum),
        "gemv": best_rate(size, lambda: matrix @ vector),
    }


@torch.inference_mode()
def measure(_: dict[str, Any]) -> dict[str, Any]:
    """The best of each kind as numbers, everything else as facts."""
    bf16, fp32, memory = gemm_rates(torch.bfloat16), gemm_rates(torch.float32), bandwidths()
    return {
        "work": 1,
        "bf16_flops": max(bf16.values()),
        "fp32_flops": max(fp32.values()),
        "copy_bytes": memory["copy"],
        "read_bytes": max(memory["sum"], memory["gemv"]),
        "by_shape": {"bf16": bf16, "fp32": fp32, "memory": memory},
    }


def load(_: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    return measure


if __name__ == "__main__":
    if os.environ.get("BENCH_WORKER"):
        serve(load)
    else:
        print(json.dumps(load({})({}), indent=1))
