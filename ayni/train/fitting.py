"""`fit` as stages call it: training state and curves inside the artifact's working directory, a progress bar, one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ayni import telemetry
from ayni.artifacts import LOGS, STATE
from ayni.config import FitSettings, RowSettings
from ayni.model.checkpoint import save_model
from ayni.model.heads import ScalarHead
from ayni.model.precision import working_type
from ayni.model.transformer import Transformer
from ayni.telemetry import MetricsLog, progress
from ayni.text.tokenizer import Tokenizer
from ayni.train.batches import PackedRows
from ayni.train.checkpoint import resumable_step
from ayni.train.compiling import compile_layers, wanted
from ayni.train.loop import Batches, LossFunction, fit, packed_loss
from ayni.train.mesh import Mesh, barrier, gathered

METRICS = "metrics.jsonl"


def fit_in(
    work: Path,
    title: str,
    model: Transformer | ScalarHead,
    batches: Batches,
    loss_fn: LossFunction,
    settings: FitSettings,
    *,
    steps: int,
    tokens: int,
    mesh: Mesh,
    seed: int,
    fixed_shapes: bool = True,
    evaluate: Callable[[int], dict[str, Any]] | None = None,
    eval_every: int = 0,
) -> list[dict[str, Any]]:
    """Trains `model` in place, in the precision that settings and machine ask for; `tokens`: expected in all.

    Compiled if that pays: whole layers where batches are alike (`fixed_shapes`), else layers in halves. All ranks call it.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = working_type(settings.precision, parameters, mesh.device)
    compiled = wanted(settings.compile, 6 * parameters * tokens, mesh)
    if dtype != torch.float32 or compiled:
        telemetry.say(
            f"  {'bf16 weights over fp32 masters' if dtype != torch.float32 else 'fp32'}, {'compiled' if compiled else 'eager'}"
        )
    body = model.body if isinstance(model, ScalarHead) else model
    body.checkpoint_activations = settings.checkpoint_activations
    compile_layers(model, compiled, fixed_shapes)
    state_dir = work / STATE
    log = MetricsLog(work / LOGS / METRICS, resume_step=resumable_step(state_dir) + 1) if mesh.is_main else None
    with progress(title, tokens, "tokens") as bar:
        history = fit(
            model,
            batches,
            loss_fn,
            settings.optimizer,
            steps=steps,
            mesh=mesh,
            state_dir=state_dir,
            save_every=settings.save_every,
            seed=seed,
            log=(lambda figures: log.log(**figures)) if log is not None else None,
            progress=bar,
            micro_rows=settings.micro_rows,
            evaluate=evaluate,
            eval_every=eval_every,
            dtype=dtype,
        )
    compile_layers(model, False)
    body.checkpoint_activations = False
    if log is not None:
        log.close()
    return history


def fine_tune(
    work: Path,
    title: str,
    policy: Transformer,
    tokenizer: Tokenizer,
    samples: Sequence[tuple[list[int], list[bool]]],
    settings: RowSettings,
    *,
    epochs: int,
    mesh: Mesh,
    seed: int,
) -> None:
    """Packs (ids, loss mask) samples into rows, trains on their answers (paper 3.1), writes the whole model into `work`."""
    batches = PackedRows(samples, settings.row_len, settings.batch_rows, seed, tokenizer.pad_id or 0, epochs=epochs)
    fit_in(
        work,
        title,
        policy,
        batches,
        packed_loss,
        settings,
        steps=len(batches),
        tokens=epochs * sum(len(ids) for ids, _ in samples),
        mesh=mesh,
        seed=seed,
    )
    whole = gathered(policy, mesh, lambda: Transformer(policy.settings))
    if mesh.is_main:
        save_model(whole, work, tokenizer)
    barrier(mesh)
