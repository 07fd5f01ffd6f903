"""Models against each other, by judges that are named (paper 3.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ayni.cli.app import app
from ayni.cli.flags import Seed, Set, done, settings_of
from ayni.config_measuring import CompareSettings


@app.command(
    epilog="Examples: ayni compare runs/tiny/sft runs/tiny/v2_ppo --prompts runs/tiny/data/prompts_eval.jsonl --judge world --out wins | "
    "ayni compare v1 v2 v3 --prompts mine.jsonl --judge endpoint:http://127.0.0.1:8000#llama --out wins | "
    "ayni compare a b --prompts mine.jsonl --judge people:judged.jsonl --answers wins-answers --out by-people | "
    "ayni compare a b --prompts mine.jsonl --judge reward:models/reward --allow-shared --out by-reward"
)
def compare(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Two model directories or more.")],
    prompts: Annotated[
        Path,
        typer.Option(help="Rows with `messages` ending in a user's turn, or `prompt`; `turns`: what the user says turn by turn."),
    ],
    judge: Annotated[
        list[str],
        typer.Option(help="A plug-in (world, published), reward:DIR, endpoint:URL#MODEL (OpenAI's chat API) or people:FILE (preferences); repeatable: the majority counts."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory to write; published whole or not at all.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data directory that a plug-in judge knows; default: the prompts' own.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Where answers are kept, and found again for another judge; default: OUT-answers.")] = None,
    judge_prompt: Annotated[str | None, typer.Option(help="What an endpoint is asked: helpfulness, safety, or a YAML file; default: by the kind of prompt.")] = None,
    allow_shared: Annotated[bool, typer.Option("--allow-shared", help="Take a judge that labelled training data all the same; the table says so.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Of the answers; default 0.7.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer; default 256.", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="The first prompts only.", min=1)] = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:  # fmt: skip
    """Win rates of models against each other: both orders, ties, equal length, strengths, intervals (paper 3.4)."""
    from ayni.report import compare as report
    from ayni.stages import compare as stage

    asked = {"helpful": judge_prompt, "safety": judge_prompt} if judge_prompt else None
    values = {"judges": judge, "judge_prompts": asked, "temperature": temperature, "max_new_tokens": max_new_tokens, "limit": limit}  # fmt: skip
    settings = settings_of(CompareSettings, values, None, set_)
    stage.run(
        settings, models, prompts, out, seed=seed, data=data, answers=answers, allow_shared=allow_shared, draw=report.write_page
    )  # fmt: skip
    report.show(out)
    done(out, f"open {out / report.PAGE}")
