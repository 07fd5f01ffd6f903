"""AdamW and the learning-rate schedule (paper 2.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ayni.config import OptimizerSettings


class MasterAdamW(torch.optim.AdamW):
    """AdamW on fp32 masters of a model whose working weights are `dtype`.

        g = sum over micro-batches of g_bf16 (in fp32);      master = AdamW(master, g);      working = bf16(master)

    A gradient is added to its master's as soon as it is whole and then freed, so that no more than one bf16 gradient
    is kept. A step smaller than half a bf16 unit is not lost: it adds up in the master. With `close` the parameters are
    the masters again, so what is written to disk loses nothing either.
    """

    def __init__(self, parameters: list[nn.Parameter], dtype: torch.dtype, groups: Callable[..., Any], **options: Any):
        self.working = parameters
        self.masters = [nn.Parameter(p.detach().float(), requires_grad=False) for p in parameters]
        self.dtype = dtype
        super().__init__(groups(self.masters), **options)
        for parameter, master in zip(self.working, self.masters):
            parameter.data = master.data.to(dtype)
        self.hooks = [p.register_post_accumulate_grad_hook(self._add(m)) for p, m in zip(self.working, self.masters)]

    @staticmethod
    def _add(master: Tensor) -> Callable[[Tensor], None]:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

        return add

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        self.show_masters()

    @torch.no_grad()
    def show_masters(self) -> None:
        """The working weights become the masters' values, rounded."""
        for parameter, master in zip(self.working, self.masters):
            parameter.copy_(master)

    def close(self) -> None:
        """The model's parameters are the fp32 masters from now on; the optimizer is not to be used any more."""
        for hook in self.hooks:
            hook.remove()
        for parameter, master in zip(self.working, self.masters):
            parameter.data = master.data


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, dtype: torch.dtype = torch.float32
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices only, embeddings included (paper silent).

    `dtype` below fp32: the model's parameters take it, and fp32 masters of them are stepped (`MasterAdamW`). Build it
    after `mesh.shard`, which replaces the parameters (FSDP2 has working copies of its own: give it fp32).
    """

    def groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        both = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return [group for group in both if group["params"]]

    parameters = [p for p in model.parameters() if p.requires_grad]
    options: dict[str, Any] = {
        "lr": settings.lr,
        "betas": (settings.beta1, settings.beta2),
        "eps": settings.eps,
        "fused": all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters),
    }
    if dtype == torch.float32:
        return torch.optim.AdamW(groups(parameters), **options)
    return MasterAdamW(parameters, dtype, groups, **options)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, the tensor that the optimizer steps) of each of the model's parameters: itself, or its fp32 master."""
    masters: dict[nn.Parameter, nn.Parameter] = {}
    if isinstance(optimizer, MasterAdamW):
        masters = dict(zip(optimizer.working, optimizer.masters))
    for name, parameter in model.named_parameters():
        yield name, masters.get(parameter, parameter)


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
