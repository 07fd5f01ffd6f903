"""How fast can int8 weights be read for one token? `python bench/int8_products.py`

All matrices of SmolLM2-135M's 30 layers in a row, once each, as a single stream reads them, as they are and joined: torch's weight-only product (the engine's),
its dynamically quantised one (fbgemm), and bf16. In turns; the best of 20, in gigabytes of weights a second, with the relative error
of the result where one activation is 30 times the others.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ayni.engine.int8 import Int8Linear

LAYERS, ROUNDS = 30, 20
SHAPES = {  # of a layer's matrices, [out, in]
    "as they are": ((576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)),
    "q k v in one, gate and up in one": ((960, 576), (576, 576), (3072, 576), (576, 1536)),
}
Product = Callable[[Tensor], Tensor]


def weight_only(weight_oi: Tensor) -> Product:
    return Int8Linear(weight_oi)


def dynamic(weight_oi: Tensor) -> Product:
    scale_o = weight_oi.abs().amax(1) / 127
    zero_o = torch.zeros(len(scale_o), dtype=torch.long)
    packed = torch.ops.quantized.linear_prepack(
        torch.quantize_per_channel(weight_oi, scale_o, zero_o, 0, torch.qint8), None
    )
    return lambda x: torch.ops.quantized.linear_dynamic(x.float(), packed, False).to(x.dtype)


def bfloat16(weight_oi: Tensor) -> Product:
    weight_oi = weight_oi.bfloat16()
    return lambda x: linear(x, weight_oi)


KINDS: dict[str, tuple[Callable[[Tensor], Product], int]] = {  # name -> (maker, bytes a weight)
    "int8 weights (engine)": (weight_only, 1),
    "int8 dynamic (fbgemm)": (dynamic, 1),
    "bf16": (bfloat16, 2),
}


def seconds(products: list[tuple[Product, Tensor]]) -> float:
    started = time.perf_counter()
    for product, x in products:
        product(x)
    return time.perf_counter() - started


@torch.inference_mode()
def measure(shapes: tuple[tuple[int, int], ...]) -> dict[str, dict[str, Any]]:
    """name -> {"ms", "GB/s", "error"}; `shapes`: of a layer's matrices."""
    torch.manual_seed(0)
    weights = [torch.randn(shape) * 0.05 for _ in range(LAYERS) for shape in shapes]
    inputs = {i: torch.randn(1, i) for i in {shape[1] for shape in shapes}}
    for x in inputs.values():
        x[0, 7] *= 30
    xs = [inputs[weight.shape[1]].bfloat16() for weight in weights]
    made = {name: [*zip(map(make, weights), xs)] for name, (make, _) in KINDS.items()}
    best = dict.fromkeys(KINDS, float("inf"))
    for _ in range(ROUNDS):
        best = {name: min(best[name], seconds(products)) for name, products in made.items()}
    size = sum(weight.numel() for weight in weights)
    exact = xs[-1].double() @ weights[-1].double().T
    return {
        name: {
            "ms": 1e3 * best[name],
            "GB/s": size * KINDS[name][1] / best[name] / 1e9,
            "error": float((made[name][-1][0](xs[-1]).double() - exact).norm() / exact.norm()),
        }
        for name in KINDS
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # torch: its own quantised tensors are to move to another package
    for arrangement, shapes in SHAPES.items():
        print(arrangement)
        for name, found in measure(shapes).items():
            print(f"  {name:24} {found['ms']:6.2f} ms  {found['GB/s']:5.1f} GB/s  relative error {found['error']:.3f}")
