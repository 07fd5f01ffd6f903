"""transformers' Llama, trained as its users do: loss from the model, backward, clip_grad_norm_, fused AdamW.

Set-up: model (a directory), rows [steps, R, T + 1] of ids, lr, weight_decay, betas, eps, precision, compiled.
precision: `autocast` (fp32 weights, bf16 autocast), `mkldnn-bf16` (fp32 weights, oneDNN may multiply in bf16), `fp32`, and
`bf16` (weights and moments in bf16: another precision class, for comparison only).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.worker import serve

CLIP = 1.0


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    precision = setup["precision"]
    if precision == "mkldnn-bf16":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(setup["model"], dtype=dtype, attn_implementation="sdpa").train()
    model.config.use_cache = False
    called = torch.compile(model) if setup.get("compiled") else model
    optimizer = make_optimizer(model, setup)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    batches = torch.tensor(setup["rows"])

    def step(tokens: torch.Tensor) -> float:
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        autocast = torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else contextlib.nullcontext()
        with autocast:
            loss = called(input_ids=inputs, labels=targets, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    def run(request: dict[str, Any]) -> dict[str, Any]:
        restart(model, optimizer, start)
        steps = batches[:1] if request["warmup"] else batches
        began = time.perf_counter()
        losses = [step(tokens) for tokens in steps]
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "work": steps.shape[0] * steps.shape[1] * (steps.shape[2] - 1), "losses": losses}

    return run


def make_optimizer(model: torch.nn.Module, setup: dict[str, Any]) -> torch.optim.AdamW:
    """Weight decay on matrices only, as on our side."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": setup["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=setup["lr"], betas=tuple(setup["betas"]), eps=setup["eps"], fused=True)


@torch.no_grad()
def restart(model: torch.nn.Module, optimizer: torch.optim.Optimizer, start: dict[str, torch.Tensor]) -> None:
    """Weights and moments as at the beginning, in the memory that they have already."""
    model.load_state_dict(start)
    for moments in optimizer.state.values():
        for value in moments.values():
            value.zero_()


if __name__ == "__main__":
    serve(load)
