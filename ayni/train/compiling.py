"""What is compiled, and when: a pure function of the settings and of the machine, never of the clock.

The unit is a layer: all layers run one compiled graph, so a model of 30 costs no more than one of 2 to compile (half a
minute; torch keeps the code on disk for the next run). In it norm, rotation, SwiGLU and the softmax of a block of
queries are fused loops; matrix products stay with the library. A run too short to repay that stays eager.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ayni import telemetry
from ayni.config import Compile
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Layer, Mask, Transformer
from ayni.train.mesh import Mesh

WORTH_IT = 1e14  # floating-point operations: minutes of work on a few cores, a sixth of which is saved (LOG.md)


def wanted(choice: Compile, operations: float, mesh: Mesh) -> bool:
    """Whether to compile a run of that many floating-point operations."""
    if choice == "never" or mesh.world > 1:  # sharded layers gather their weights in hooks of the eager call
        return False
    if choice == "always" and not compiler_found():
        raise ValueError("compile: always needs a C++ compiler (g++ or clang++); install one, or set compile=auto")
    return choice == "always" or repays(operations)


def repays(operations: float) -> bool:
    """`compile: auto`, for steps with gradients and for sampling."""
    return operations >= WORTH_IT and compiler_found()


def compile_layers(model: Transformer | ScalarHead, on: bool = True, fixed_shapes: bool = True) -> None:
    """From now on (or, `on=False`, no longer) the model runs compiled layers, but for decoding, which has its own.

    `fixed_shapes`: batches are alike, and the whole layer is one graph (with gradients; without them shapes differ, and
    layers stay eager). Otherwise rows of any number and length: what comes before attention is a graph and what comes
    after it another, and attention goes from sequence to sequence between them.
    """
    body = model.body if isinstance(model, ScalarHead) else model
    body.compiled_layer = (whole_layer if fixed_shapes else layer_in_halves) if on else None


@contextmanager
def compiled_layers(model: Transformer | ScalarHead, on: bool) -> Iterator[None]:
    """Inside, and if `on`, batches of any shape run through layers compiled in halves."""
    compile_layers(model, on, fixed_shapes=False)
    try:
        yield
    finally:
        compile_layers(model, False)


def whole_layer(layer: Layer, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask) -> Tensor:
    """Layer.forward as one graph, where there are gradients."""
    run = _compiled_layer() if torch.is_grad_enabled() else Layer.forward
    return run(layer, x_BTD, cos, sin, mask)


def layer_in_halves(layer: Layer, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask) -> Tensor:
    """Layer.forward for rows of any shape: compiled before attention and after it."""
    before, after = _compiled_halves()
    q_BTHd, k_BTKd, v_BTKd = before(layer, x_BTD, cos, sin)
    return after(layer, x_BTD, layer.attention.attend(q_BTHd, k_BTKd, v_BTKd, mask))


def fuses(model: nn.Module) -> bool:
    """Whether this model's steps are compiled for batches of one shape."""
    return getattr(getattr(model, "body", model), "compiled_layer", None) is whole_layer


@cache
def _compiled_layer() -> Callable[..., Any]:
    return compiled(Layer.forward)  # the first batch's shape as it is, any other number of rows by a second compilation


@cache
def _compiled_halves() -> tuple[Callable[..., Any], Callable[..., Any]]:
    return compiled(Layer.before_attention, dynamic=True), compiled(Layer.after_attention, dynamic=True)


@cache
def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's element-wise work as one loop, for tensors of any size."""
    return compiled(function, dynamic=True)


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """torch.compile, with the code kept in the user's own cache for the next run."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    # Beyond its limit torch would go on eagerly without a word; models of several sizes may share a process.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, **options)


def code_folder() -> Path:
    """Where compiled code is kept: `compiled` in $AYNI_CACHE (default ~/.cache/ayni)."""
    return Path(os.environ.get("AYNI_CACHE") or "~/.cache/ayni").expanduser() / "compiled"


@cache
def compiler_found() -> bool:
    found = torch.cuda.is_available() or any(map(shutil.which, ("g++", "clang++")))
    if not found:
        telemetry.say("  no C++ compiler on this machine: nothing is compiled, the same steps run slower")
    return found
