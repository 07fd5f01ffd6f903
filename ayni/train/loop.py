"""The one training loop, flat: batch, loss, backward, step, log, save, evaluate.

Pretraining, SFT and reward models call `fit`; PPO calls its `train_step` on minibatches of its own rollouts.
A loss function returns sums and a count, (loss_sum, count, stats): the loop divides by the count of the whole global
batch, so micro-batches and ranks change the speed and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ayni.config import OptimizerSettings
from ayni.telemetry import ProgressBar
from ayni.train.allocator import keep_freed_memory
from ayni.train.batches import Packed
from ayni.train.checkpoint import checkpoints, load_checkpoint, remove_unfinished, resumable_step, save_checkpoint
from ayni.train.compiling import fuses
from ayni.train.mesh import Idle, Mesh, all_reduce_sum, barrier, shard, split, whole
from ayni.train.optimizer import MasterAdamW, lr_at, make_optimizer, set_lr
from ayni.train.output import loss_of_targets

LossFunction = Callable[[nn.Module, Any], tuple[Tensor, int | Tensor, dict[str, Any]]]


class Batches(Protocol):
    """`at(step)` is the global batch of a step, a pure function of the step and a seed fixed at construction."""

    def at(self, step: int) -> Any: ...


class TrainingDiverged(ValueError):
    """The loss or the gradient is not finite. The weights were not touched by the step that found it."""


def rows_loss(model: nn.Module, tokens: Tensor) -> tuple[Tensor, int, dict[str, Any]]:
    """Pretraining (paper 2.2): every token of rows [R, T + 1] but the first is predicted; documents lie end to end."""
    targets = tokens[:, 1:]
    keep = torch.arange(targets.numel(), device=tokens.device)
    head = partial(loss_of_targets, targets_N=targets.flatten(), fuse=fuses(model))
    return model(tokens[:, :-1], keep_N=keep, head=head), targets.numel(), {}


def packed_loss(model: nn.Module, packed: Packed) -> tuple[Tensor, int, dict[str, Any]]:
    """SFT (paper 3.1): loss on answer tokens only; logits are computed at those positions only."""
    head = partial(loss_of_targets, targets_N=packed.targets_N, fuse=fuses(model))
    mask = packed.mask_RTT if fuses(model) else packed.attention(next(model.parameters()))
    loss = model(packed.tokens_RT, packed.positions_RT, mask, keep_N=packed.predict_N, head=head)
    return loss, len(packed.predict_N), {"tokens": sum(length for _, _, length in packed.where)}


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Any],
    loss_fn: LossFunction,
    clip: float,
    mesh: Mesh,
) -> dict[str, float]:
    """One optimizer step on one global minibatch, of which this rank holds `micro_batches` (see `mesh.split`).

    Returns over the whole minibatch: `loss` and every statistic divided by the count, `count`, `tokens` (the sum of that
    statistic; the count, if the loss gives none) and `grad_norm` before clipping. Raises TrainingDiverged, weights
    untouched, if loss or gradient is not finite.
    """
    totals: Tensor | None = None
    names: list[str] = []
    for micro in micro_batches:
        idle = isinstance(micro, Idle)
        loss_sum, count, stats = loss_fn(model, micro.batch if idle else micro)
        (loss_sum * 0.0 if idle else loss_sum).backward()
        names = ["loss", "count", *sorted(stats)]
        values = [loss_sum, count, *(stats[name] for name in names[2:])]
        sums = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=mesh.device).detach() for v in values])
        sums = torch.zeros_like(sums) if idle else sums
        totals = sums if totals is None else totals + sums
    assert totals is not None, "a step needs at least one micro-batch"
    total = dict(zip(names, all_reduce_sum(totals, mesh).tolist()))  # the step's only wait for the device
    count = total.pop("count")
    if count == 0:
        raise ValueError("the batch has no loss token: nothing to learn from")

    gradients = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for parameter in gradients:
        parameter.grad.mul_(mesh.world / count)  # FSDP2 averages over ranks; we want the sum over the global count
    grad_norm = whole(torch.nn.utils.clip_grad_norm_(gradients, clip or math.inf)).item()
    tokens = total.pop("tokens", count)
    means = {name: value / count for name, value in total.items()}
    if not (math.isfinite(means["loss"]) and math.isfinite(grad_norm)):
        optimizer.zero_grad()
        raise TrainingDiverged(f"loss {means['loss']:g}, gradient norm {grad_norm:g}")
    optimizer.step()
    optimizer.zero_grad()
    return {**means, "grad_norm": grad_norm, "count": count, "tokens": tokens}


def fit(
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFunction,
    settings: OptimizerSettings,
    *,
    steps: int,
    mesh: Mesh,
    state_dir: Path,
    save_every: int,
    seed: int,
    log: Callable[[dict[str, Any]], object] | None = None,
    progress: ProgressBar | None = None,
    micro_rows: int | None = None,
    evaluate: Callable[[int], dict[str, Any]] | None = None,
    eval_every: int = 0,
    dtype: torch.dtype = torch.float32,
) -> list[dict[str, Any]]:
    """Train `model` in place (sharded, if the mesh has several ranks) for `steps` optimizer steps, resuming if it can.

    `log` receives per step: step (1 = after the first), loss, lr, grad_norm, tokens (cumulative), tokens_per_second and
    the means of the loss function's statistics; and {"step": ..., **figures} of every evaluation. The history returned
    is the same without the clock, complete though the run was resumed, and equal to that of a run never stopped.
    `progress` is advanced by tokens. Checkpoints are written every `save_every` steps and after the last, always before
    an evaluation; evaluations happen every `eval_every` steps and after the last, on all ranks. `dtype` is that of the
    working weights; what the model holds afterwards are fp32 weights.
    """
    if steps < 1:
        raise ValueError(f"{steps} optimizer steps asked for; the token budget or the data is too small for one batch")
    keep_freed_memory()
    torch.manual_seed(seed)
    random.seed(seed)
    shard(model, mesh, dtype)
    model.train()
    optimizer = make_optimizer(model, settings, dtype if mesh.world == 1 else torch.float32)
    trained = {"model": (model, optimizer)}
    settings_hash = _settings_hash(model, settings, steps, seed, dtype)

    if mesh.is_main:
        remove_unfinished(state_dir)
    barrier(mesh)
    done, tokens, history = resumable_step(state_dir), 0, list[dict[str, Any]]()
    if done:
        state = load_checkpoint(checkpoints(state_dir)[-1], trained, settings_hash, mesh)
        tokens, history = state["tokens"], state["history"]
        if progress:
            progress.advance(tokens)

    def evaluate_if_due(done: int) -> None:
        if evaluate and done and ((eval_every and done % eval_every == 0) or done == steps):
            history.append({"step": done, **evaluate(done)})
            model.train()
            if log:
                log(history[-1])

    evaluate_if_due(done)  # the checkpoint resumed from was written before its evaluation
    for step in range(done, steps):
        started = time.perf_counter()
        lr = lr_at(step, steps, settings)
        set_lr(optimizer, lr)
        micro_batches = split(_moved(batches.at(step), mesh), mesh, micro_rows)
        try:
            figures = train_step(model, optimizer, micro_batches, loss_fn, settings.clip, mesh)
        except TrainingDiverged as error:
            raise TrainingDiverged(_advice(step + 1, error, state_dir, lr)) from None

        del figures["count"]
        step_tokens = int(figures.pop("tokens"))
        tokens += step_tokens
        history.append({"step": step + 1, **figures, "lr": lr, "tokens": tokens})
        if log:
            log({**history[-1], "tokens_per_second": step_tokens / (time.perf_counter() - started)})
        if progress:
            progress.advance(step_tokens, loss=figures["loss"])

        if (step + 1) % save_every == 0 or step + 1 == steps:
            state = {"tokens": tokens, "history": history}
            save_checkpoint(state_dir, step + 1, trained, state, settings_hash, mesh)
        evaluate_if_due(step + 1)
    if isinstance(optimizer, MasterAdamW):
        optimizer.close()
    return history


def _moved(batch: Any, mesh: Mesh) -> Any:
    """Tensors and packed rows go to the device; lists of samples are packed, and moved, by their loss function."""
    return batch.to(mesh.device) if isinstance(batch, Tensor | Packed) else batch


def _settings_hash(model: nn.Module, settings: OptimizerSettings, steps: int, seed: int, dtype: torch.dtype) -> str:
    """Of all that a resumed run must share with the one that began; the stage's own inputs are its artifact's matter."""
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    facts = {"optimizer": settings.model_dump(), "steps": steps, "seed": seed, "dtype": str(dtype), "shapes": shapes}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _advice(step: int, error: TrainingDiverged, state_dir: Path, lr: float) -> str:
    whole_ones = checkpoints(state_dir)
    last = f"the last good checkpoint is {whole_ones[-1]}" if whole_ones else "no checkpoint was saved before it"
    return (
        f"training diverged at step {step}: {error}; {last}. Lower the learning rate (now {lr:g}), lengthen the "
        "warm-up or clip harder, and look at that step's data; with new settings, start from a fresh output directory"
    )
