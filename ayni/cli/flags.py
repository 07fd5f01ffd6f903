"""Flags that several commands share, and a stage's settings made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
import yaml
from pydantic import BaseModel, ValidationError

from ayni.config import OptimizerSettings

ModelDir = Annotated[Path, typer.Option("--model", help="Ayni or Hugging Face Llama directory to start from.")]
Out = Annotated[Path, typer.Option("--out", help="Directory to write; published whole or not at all.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same files, same settings: same bytes.")]
Lr = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the stage, e.g. --set row_len=512."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option(
        "--dtype",
        help="Of the weights. auto: bfloat16 for 10M parameters or more where the machine is fast at it; "
        "int8: fastest for an answer or two at a time.",
    ),
]
Device = Annotated[Literal["cpu", "cuda"], typer.Option("--device", help="Where to compute.")]
Prompts = Annotated[
    Path, typer.Option("--data", help="Prompts: rows with `messages` ending in a user's turn, or `prompt`.")
]
Helpfulness = Annotated[Path, typer.Option(help="Helpfulness reward model; PPO's critic starts from it.")]
Safety = Annotated[
    Path | None, typer.Option(help="Safety reward model (with its gate.json); without one there is no gate.")
]
S = TypeVar("S", bound=BaseModel)


def settings_of(kind: type[S], values: dict[str, Any], lr: float | None, assignments: list[str] | None) -> S:
    """Flags and KEY=VALUE pairs over a stage's defaults; `optimizer.lr=...` reaches inside."""
    merged: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if lr is not None:
        merged["optimizer"] = {"lr": lr}
    for assignment in assignments or []:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set {assignment}: expected KEY=VALUE")
        inner = merged
        *outer, last = key.split(".")
        for name in outer:
            inner = inner.setdefault(name, {}) if isinstance(inner, dict) else inner
        if not isinstance(inner, dict):
            raise ValueError(f"--set {assignment}: {key.rpartition('.')[0]} has no settings inside")
        try:
            inner[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"--set {assignment}: the value is not valid YAML") from None
    if "optimizer" in merged and isinstance(merged["optimizer"], dict):
        default = kind.model_fields["optimizer"].default
        assert isinstance(default, OptimizerSettings)
        merged["optimizer"] = {**default.model_dump(), **merged["optimizer"]}
    try:
        return kind(**merged)
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, m['loc']))}: {m['msg']}" for m in error.errors()]
        raise ValueError(
            f"settings of {kind.__name__}: {'; '.join(mistakes)}; known: {', '.join(kind.model_fields)}"
        ) from None


def done(out: Path, *following: str) -> None:
    from ayni import telemetry

    telemetry.show(f"written: {out}", *[f"next: {command}" for command in following])
