"""Our training step on rows of real text: forward, backward, clip, AdamW.

Set-up: model (a directory), rows [steps, R, T + 1] of ids, lr. A run: `steps` optimizer steps from the same start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ayni.config import OptimizerSettings
from ayni.model.checkpoint import load_model
from ayni.train.allocator import keep_freed_memory
from ayni.train.compiling import compile_layers
from ayni.train.loop import rows_loss, train_step
from ayni.train.mesh import Mesh
from ayni.train.optimizer import MasterAdamW, make_optimizer
from bench.costs import training_flops
from bench.worker import serve

CLIP = 1.0


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    keep_freed_memory()  # as the stages do
    model = load_model(Path(setup["model"])).train()
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer(model, OptimizerSettings(lr=setup["lr"], clip=CLIP), torch.bfloat16)
    assert isinstance(optimizer, MasterAdamW)
    compile_layers(model)
    batches = torch.tensor(setup["rows"])

    def run(request: dict[str, Any]) -> dict[str, Any]:
        restart(optimizer, start)
        steps = batches[:1] if request["warmup"] else batches
        began = time.perf_counter()
        losses = []
        for tokens in steps:
            losses.append(train_step(model, optimizer, [tokens], rows_loss, CLIP, Mesh())["loss"])
        seconds = time.perf_counter() - began
        S, R, T = steps.shape[0], steps.shape[1], steps.shape[2] - 1
        cost = training_flops(model.settings, [T] * (S * R))
        return {"seconds": seconds, "work": S * R * T, "cost": cost, "losses": losses}

    return run


@torch.no_grad()
def restart(optimizer: MasterAdamW, start: list[torch.Tensor]) -> None:
    """Weights and moments as at the beginning, in the memory that they have already."""
    for master, value in zip(optimizer.masters, start, strict=True):
        master.copy_(value)
    optimizer.show_masters()
    for moments in optimizer.state.values():
        for value in moments.values():
            value.zero_()


if __name__ == "__main__":
    serve(load)
