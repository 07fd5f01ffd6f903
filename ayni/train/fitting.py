"""`fit` as stages call it: training state and curves inside the artifact's working directory, a progress bar, one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ayni.artifacts import LOGS, STATE
from ayni.config import FitSettings, RowSettings
from ayni.model.transformer import Transformer
from ayni.telemetry import MetricsLog, progress
from ayni.train.batches import PackedRows
from ayni.train.checkpoint import resumable_step
from ayni.train.loop import Batches, LossFunction, fit, packed_loss
from ayni.train.mesh import Mesh, gathered

METRICS = "metrics.jsonl"


def fit_in(
    work: Path,
    title: str,
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFunction,
    settings: FitSettings,
    *,
    steps: int,
    tokens: int | None,
    mesh: Mesh,
    seed: int,
    evaluate: Callable[[int], dict[str, Any]] | None = None,
    eval_every: int = 0,
) -> list[dict[str, Any]]:
    """Trains `model` in place; `tokens` (expected in all; None: unknown) is for the bar alone. All ranks call it."""
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
        )
    if log is not None:
        log.close()
    return history


def fine_tune(
    work: Path,
    title: str,
    policy: Transformer,
    samples: Sequence[tuple[list[int], list[bool]]],
    settings: RowSettings,
    *,
    epochs: int,
    pad_id: int,
    mesh: Mesh,
    seed: int,
) -> Transformer:
    """Packs (ids, loss mask) samples into rows and trains on their answers (paper 3.1); the whole model, on every rank."""
    batches = PackedRows(samples, settings.row_len, settings.batch_rows, seed, pad_id, epochs=epochs)
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
    return gathered(policy, mesh, lambda: Transformer(policy.settings))
