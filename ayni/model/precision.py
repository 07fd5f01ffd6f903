"""Which type a model works in: bf16 where the machine multiplies it fast and the model is large enough, else fp32."""

from __future__ import annotations

from functools import cache

import torch

from ayni.config import Precision

SMALL = 10_000_000  # parameters: below, a step is not made of matrix products, and bf16 saves nothing


def working_type(precision: Precision, parameters: int, device: torch.device) -> torch.dtype:
    """The type of weights and activations while a model of that many parameters trains or samples."""
    if precision == "auto":
        return torch.bfloat16 if parameters >= SMALL and fast_bf16(device.type) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@cache
def fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bf16: AMX or AVX512-BF16 on x86 (without, fp32 is faster), any recent GPU."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return device == "cpu" and bool(found.get("amx_bf16") or found.get("avx512_bf16"))
