"""The training step: tokens/s of optimizer steps on real text, at 4 x 512 and 1 x 2048 tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ayni.config import OptimizerSettings
from bench import model
from bench.workload import Against, Facts, Side, Workload

STEPS = 2  # optimizer steps of a run
LR = 2e-5
LOSS_TOLERANCE = 1e-2
# Plain fp32 and bf16 matmul settings over fp32 weights ran at 54 to 65% of autocast's rate where all were tried.
SAME_CLASS = ({"precision": "autocast"}, {"precision": "mkldnn-bf16"})


def inputs(rows: int, length: int) -> Callable[[], Facts]:
    def make() -> Facts:
        R, T = (2, 64) if os.environ.get("BENCH_TINY") else (rows, length)
        shape = (STEPS, R, T + 1)
        settings = OptimizerSettings()
        return {
            "model": str(model.smollm2()),
            "rows": torch.tensor(model.text_tokens(STEPS * R * (T + 1))).view(shape).tolist(),
            "lr": LR,
            "weight_decay": settings.weight_decay,
            "betas": [settings.beta1, settings.beta2],
            "eps": settings.eps,
        }

    return make


def same_losses(facts: dict[str, Any]) -> None:
    """Every side's loss at every step, within LOSS_TOLERANCE of ours."""
    ours = facts["ayni"]["losses"]
    for name, found in facts.items():
        apart = max(abs(mine - yours) for mine, yours in zip(ours, found["losses"], strict=True))
        if apart > LOSS_TOLERANCE:
            raise ValueError(
                f"losses differ by {apart:.3g}: ayni {ours}, {name} {found['losses']}; not the same training"
            )


def training(name: str, rows: int, length: int) -> Workload:
    common = "sdpa, no cache, no gradient checkpointing, fused AdamW, clip 1.0"
    eager = Side(
        "transformers-eager",
        "peers/transformers_train.py",
        environment="transformers",
        candidates=SAME_CLASS,
        settings=f"eager, {common}",
    )
    compiled = Side(
        "transformers-compiled",
        "peers/transformers_train.py",
        environment="transformers",
        setup={"compiled": True},
        inherits=eager.name,
        settings=f"torch.compile, {common}",
    )
    return Workload(
        name=name,
        unit="tokens/s",
        say=f"{STEPS} optimizer steps of {rows} x {length} tokens of real text, losses of both sides within {LOSS_TOLERANCE:g}",
        inputs=inputs(rows, length),
        check=same_losses,
        bound="bf16_flops",
        roofline_goal=0.30,
        ours=Side(
            "ayni",
            "ours/train.py",
            settings="bf16 working weights, fp32 masters and moments, compiled layers, fused AdamW, clip 1.0",
        ),
        peers=(Against(eager, goal=1.8), Against(compiled, goal=1.1)),
    )


WORKLOADS = [training("train-4x512", 4, 512), training("train-1x2048", 1, 2048)]
