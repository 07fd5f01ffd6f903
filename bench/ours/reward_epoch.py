"""Our reward model's epoch: the loss and the step of `ayni.stages.reward`, without its files and its evaluation."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ayni.artifacts import read_json
from ayni.config import OptimizerSettings
from ayni.model.checkpoint import load_scalar
from ayni.stages.reward import Pair, score_pairs
from ayni.train.allocator import keep_freed_memory
from ayni.train.compiling import compile_layers
from ayni.train.loop import train_step
from ayni.train.losses import preference_loss
from ayni.train.mesh import Mesh
from ayni.train.optimizer import make_optimizer
from bench.worker import Facts, Run, serve

WARM_UP_STEPS = 2


def load(setup: Facts) -> Run:
    pairs = [Pair(pair["chosen"], pair["rejected"], (1, 1), 0, None) for pair in read_json(Path(setup["pairs"]))]
    keep_freed_memory()  # as the stages do
    size, settings = setup["batch_pairs"], OptimizerSettings(**setup["optimizer"])
    loss_fn = partial(loss_of_pairs, max_tokens=setup["max_tokens"])

    def run(request: Facts) -> Facts:
        taken = pairs[: WARM_UP_STEPS * size] if request["warmup"] else pairs
        model = load_scalar(Path(setup["scorer"]))
        start = time.perf_counter()
        optimizer = make_optimizer(model, settings, torch.bfloat16)
        model.train()
        compile_layers(model, fixed_shapes=False)
        steps = [
            train_step(model, optimizer, [taken[at : at + size]], loss_fn, settings.clip, Mesh())
            for at in range(0, len(taken), size)
        ]
        return {
            "seconds": time.perf_counter() - start,
            "work": len(taken),
            "steps": len(steps),
            "tokens": round(sum(step["tokens"] for step in steps)),
            "loss": sum(step["loss"] for step in steps) / len(steps),
        }

    return run


def loss_of_pairs(scalar: nn.Module, batch: list[Pair], max_tokens: int) -> tuple[Tensor, int, dict[str, Any]]:
    """-log sigmoid(r_chosen - r_rejected), summed over the pairs, and their number."""
    r_chosen_B, r_rejected_B = score_pairs(scalar, batch, max_tokens, 0, torch.device("cpu"))
    loss = preference_loss(r_chosen_B, r_rejected_B, torch.zeros(len(batch))).sum()
    return loss, len(batch), {"tokens": sum(len(pair.chosen) + len(pair.rejected) for pair in batch)}


if __name__ == "__main__":
    serve(load)
