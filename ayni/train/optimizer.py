"""AdamW and the learning-rate schedule (paper 2.2)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ayni.config import OptimizerSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices only, embeddings included (paper silent).

    This is the one place that says which tensors are stepped: bf16 working weights over fp32 masters, when they come,
    are a matter of what is handed to AdamW here. Build it after `mesh.shard`, which replaces the parameters.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters),
    )


def lr_at(step: int, total: int, settings: OptimizerSettings) -> float:
    """Learning rate of step 0..total-1: linear warm-up, then constant or a cosine down to `final_lr_share` of the peak.

    The first step already moves (1/warm-up of the peak) and the last one is exactly at the final rate.
    """
    warmup = min(settings.warmup_steps, total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (step - warmup) / max(1, total - 1 - warmup)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return settings.lr * (settings.final_lr_share + (1 - settings.final_lr_share) * share)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
