"""Two orders of the rows of wq and wk within a head (TRAPS 15).

Meta's code (and GGUF, llama2.c) turns neighbours: pair i is rows (2i, 2i + 1). Hugging Face, and we, turn halves: pair i
is rows (i, i + d/2). The same network either way, as long as queries and keys agree.
"""

from __future__ import annotations

from torch import Tensor

ROTATED = (".wq.weight", ".wk.weight")


def halved(weight: Tensor, d: int) -> Tensor:
    """Interleaved rows [heads * d, D] in our order."""
    return weight.reshape(-1, d // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def interleaved(weight: Tensor, d: int) -> Tensor:
    """The inverse of `halved`."""
    return weight.reshape(-1, 2, d // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
