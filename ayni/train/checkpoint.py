"""Training checkpoints: everything a killed run needs to go on as if it had not been killed.

    state_dir/step-00000200/  model.safetensors  model_optimizer.safetensors  state.json

A checkpoint is written beside its final name, flushed to disk and published by one rename, and only then do the older
ones go (the previous one stays). Sharded tensors are gathered to the first rank, so that a run resumes on any number of
ranks; the data position is the step, so nothing else depends on it either. Random states are the first rank's: ranks
never draw apart. DTensor gathers and lays out each tensor here, since torch's distributed checkpoint pickles by default.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ayni.artifacts import fsync
from ayni.train.mesh import Mesh, barrier, full_state, load_full_state, place, whole
from ayni.train.optimizer import MasterAdamW, stepped

Trained = Mapping[str, tuple[nn.Module, torch.optim.Optimizer]]  # by the name its files get
KEEP = 2  # the last and the one before


def checkpoints(state_dir: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    if not state_dir.is_dir():
        return []
    return sorted(path for path in state_dir.iterdir() if re.fullmatch(r"step-\d{8,}", path.name))


def resumable_step(state_dir: Path) -> int:
    """Optimizer steps already done according to the newest checkpoint; 0 without one."""
    found = checkpoints(state_dir)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def save_checkpoint(
    state_dir: Path, step: int, trained: Trained, state: Mapping[str, Any], settings_hash: str, mesh: Mesh
) -> None:
    """Publish state_dir/step-N with weights, optimizer, random states and the caller's `state` (JSON). All ranks call it."""
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, (model, optimizer) in trained.items():
        tensors[name] = full_state(stepped(model, optimizer), mesh)
        tensors[f"{name}_optimizer"] = _optimizer_tensors(model, optimizer, mesh)
    if mesh.is_main:
        record = {"step": step, "settings_hash": settings_hash, "rng": _rng_states(), **state}
        try:
            _publish(state_dir, step, tensors, record)
        except (OSError, SafetensorError) as error:
            remove_unfinished(state_dir)
            raise ValueError(
                f"{state_dir}: cannot write the checkpoint of step {step} ({error}); earlier ones are untouched. "
                "Free some disk space and run the same command again: it resumes"
            ) from error
    barrier(mesh)


def _publish(state_dir: Path, step: int, tensors: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    unfinished = state_dir / f".unfinished-{step:08d}"
    unfinished.mkdir()
    for name, content in tensors.items():
        save_file(content, unfinished / f"{name}.safetensors")
    (unfinished / "state.json").write_text(json.dumps(record), encoding="utf-8")
    for path in [*unfinished.iterdir(), unfinished]:
        fsync(path)
    unfinished.rename(state_dir / f"step-{step:08d}")
    fsync(state_dir)
    for old in checkpoints(state_dir)[:-KEEP]:
        leaving = state_dir / f".unfinished-{old.name}"  # what a kill leaves of it is no checkpoint
        old.rename(leaving)
        shutil.rmtree(leaving)


def remove_unfinished(state_dir: Path) -> None:
    """Clear away what a kill left half-written; one rank calls it, before anything is saved."""
    if state_dir.is_dir():
        for path in state_dir.glob(".unfinished-*"):
            shutil.rmtree(path)


def load_checkpoint(directory: Path, trained: Trained, settings_hash: str, mesh: Mesh) -> dict[str, Any]:
    """Weights, optimizers and random states come back in place; the caller's `state` is returned. All ranks call it."""
    record: dict[str, Any] = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    if record["settings_hash"] != settings_hash:
        raise ValueError(
            f"{directory} was written under other settings; remove {directory.parent} to start anew, "
            "or go back to the settings it was started with"
        )
    for name, (model, optimizer) in trained.items():
        load_full_state(stepped(model, optimizer), _read(directory / f"{name}.safetensors"))
        if isinstance(optimizer, MasterAdamW):
            optimizer.show_masters()
        _load_optimizer(model, optimizer, _read(directory / f"{name}_optimizer.safetensors"))
    _set_rng_states(record["rng"])
    return record


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove {path.parent} to resume from the one before") from error


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, mesh: Mesh) -> dict[str, Tensor]:
    """Adam's state by "parameter name / key", whole, on the first rank."""
    tensors = {}
    for name, parameter in stepped(model, optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            full = whole(value)
            if mesh.is_main:
                tensors[f"{name}/{key}"] = full.cpu()
    return tensors


def _load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(stepped(model, optimizer))
    for path, value in tensors.items():
        name, key = path.rsplit("/", 1)
        parameter = parameters[name]
        sharded = isinstance(parameter, DTensor) and value.shape == parameter.shape
        optimizer.state[parameter][key] = place(value, parameter) if sharded else value.to(parameter.device)


def _rng_states() -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state().tolist(), "python": random.getstate()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state().tolist()
    return states


def _set_rng_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(states["cuda"], dtype=torch.uint8))
