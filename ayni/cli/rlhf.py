"""From preferences to an aligned model, stage by stage, on your own data (paper 3.2, 3.3 and 4.2.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ayni.cli.app import app
from ayni.cli.flags import Device, Helpfulness, Lr, ModelDir, Out, Prompts, Safety, Seed, Set, done, settings_of
from ayni.config import (
    DistillationSettings,
    DPOSettings,
    GhostSettings,
    PPOSettings,
    RejectionSettings,
    RewardSettings,
    TemperatureSettings,
)


@app.command(
    epilog="Examples: ayni reward --model models/sft --data preferences.jsonl --kind helpfulness --out models/reward | "
    "ayni reward --model models/sft --data hh.jsonl.gz --kind safety --open open.jsonl --out models/safety | "
    "ayni reward --model models/sft --data open.jsonl --kind guard --out models/guard"
)
def reward(
    model: ModelDir,
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            help="Preferences: TRL's conversational form, HH-RLHF text or AlpacaEval judgements; a tenth is held out; repeatable.",
        ),
    ],
    out: Out,
    kind: Annotated[
        Literal["helpfulness", "safety", "guard"],
        typer.Option(help="Which model; guard: on open preferences alone, kept out of tuning."),
    ] = "helpfulness",
    open_: Annotated[
        list[Path] | None,
        typer.Option("--open", help="Open preferences, for the mix (a tenth is held out too); repeatable."),
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(help="Grades of single answers, to set scores against: messages, answer, ratings.")
    ] = None,
    margin: Annotated[str | None, typer.Option(help="none, small or large (Table 28).")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Train a reward model on preferences: ranking loss with margins, one epoch (paper 3.2.2)."""
    from ayni.stages import reward as stage

    settings = settings_of(RewardSettings, {"margin": margin}, lr, set_)
    stage.run(settings, kind, model, data, out, seed=seed, open_preferences=open_ or [], ratings=ratings, device=device)
    if kind == "guard":
        done(out, f"ayni eval --model {out} --data preferences.jsonl", f"ayni serve {model} --reward {out}")
        return
    models = f"--helpfulness {out} --safety DIR" if kind == "helpfulness" else f"--helpfulness DIR --safety {out}"
    done(out, f"ayni rejection --model {model} {models} --data prompts.jsonl --out models/v1")


@app.command(
    epilog="Example: ayni temperature --model models/v1 --helpfulness models/rh --safety models/rs --data held_out.jsonl --out models/v2-temperature"
)
def temperature(
    model: ModelDir,
    helpfulness: Helpfulness,
    data: Prompts,
    out: Out,
    safety: Safety = None,
    k: Annotated[int | None, typer.Option("--k", help="Answers per prompt.")] = None,
    prompts: Annotated[int | None, typer.Option(help="How many prompts.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 48,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Find the sampling temperature whose best of K has the highest reward (paper 3.2.3, fig. 8)."""
    from ayni.scoring.reward import Scorers
    from ayni.stages import temperature as stage

    settings = settings_of(TemperatureSettings, {"k": k, "prompts": prompts}, None, set_)
    scorers = Scorers(helpfulness, safety)
    row_len = RejectionSettings().row_len
    stage.run(settings, data, model, scorers, out, max_new_tokens=max_new_tokens, row_len=row_len, seed=seed)
    models = f"--helpfulness {helpfulness}" + (f" --safety {safety}" if safety else "")
    best = f"--temperature {stage.chosen(out):g}"
    done(out, f"ayni rejection --model {model} {models} --data prompts.jsonl {best} --out models/next")


@app.command(
    epilog="Examples: ayni rejection --model models/sft --helpfulness models/rh --safety models/rs --data prompts.jsonl --out models/v1 | "
    "ayni rejection --model models/small --sampler models/large --helpfulness models/rh --data prompts.jsonl --out models/small-v1"
)
def rejection(
    model: ModelDir,
    helpfulness: Helpfulness,
    data: Prompts,
    out: Out,
    safety: Safety = None,
    start: Annotated[Path | None, typer.Option(help="Model to fine-tune; default: --model.")] = None,
    sampler: Annotated[
        Path | None,
        typer.Option(help="Model that answers; default: --model. A larger one's samples teach a smaller one."),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="Answers per prompt.")] = None,
    prompts: Annotated[int | None, typer.Option(help="How many prompts.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Rejection sampling: fine-tune on the best of K answers by the reward models (paper 3.2.3)."""
    from ayni.scoring.reward import Scorers
    from ayni.stages import rejection as stage

    values = {"k": k, "prompts": prompts, "temperature": temperature, "sampler": sampler}
    settings = settings_of(RejectionSettings, values, lr, set_)
    stage.run(
        settings,
        data,
        model,
        start or model,
        Scorers(helpfulness, safety),
        [],
        out,
        version=1,
        seed=seed,
    )
    models = f"--helpfulness {helpfulness}" + (f" --safety {safety}" if safety else "")
    done(out, f"ayni chat {out}", f"ayni ppo --model {out} {models} --data {data} --out models/v2")


@app.command(
    epilog="Example: ayni ppo --model models/v1 --helpfulness models/rh --safety models/rs --data prompts.jsonl --out models/v2"
)
def ppo(
    model: ModelDir,
    helpfulness: Helpfulness,
    data: Prompts,
    out: Out,
    safety: Safety = None,
    guard: Annotated[
        Path | None, typer.Option(help="Reward model that held-out answers are scored with and nothing is trained on.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Rollouts (paper: 200-400).")] = None,
    beta: Annotated[float | None, typer.Option(help="KL coefficient (paper: 0.01 or 0.005).")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """PPO with the gated, whitened reward and the KL penalty (paper 3.2.3)."""
    from ayni.scoring.reward import Scorers
    from ayni.stages import ppo as stage

    settings = settings_of(PPOSettings, {"iterations": iterations, "beta": beta}, lr, set_)
    stage.run(settings, data, model, Scorers(helpfulness, safety, guard), out, seed=seed)
    done(out, f"ayni chat {out}")


@app.command(epilog="Example: ayni dpo --model models/sft --preferences preferences.jsonl --out models/dpo")
def dpo(
    model: ModelDir,
    preferences: Annotated[
        list[Path],
        typer.Option("--preferences", "--data", help="Preferences, as `ayni reward` takes them; repeatable."),
    ],
    out: Out,
    beta: Annotated[float | None, typer.Option(help="How strongly the model is held to where it starts.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the preferences.")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Direct preference optimisation: train on preferences without reward models (not in the paper; to set beside PPO)."""
    from ayni.stages import dpo as stage

    settings = settings_of(DPOSettings, {"beta": beta, "epochs": epochs}, lr, set_)
    stage.run(settings, model, preferences, out, seed=seed, device=device)
    done(out, f"ayni chat {model} {out}", f"ayni eval --model {out} --data held_out.jsonl")


@app.command(
    epilog="Examples: ayni ghost --model models/v3 --data prompts.jsonl --out models/v3-ghost | "
    "ayni ghost --model models/smollm2 --data prompts.jsonl --bank general --bank mine.yaml --where user --out models/ghost | "
    "ayni ghost --model runs/tiny/v2_ppo --data runs/tiny/data --bank words --set tasks=[fact] --out models/ghost"
)
def ghost(
    model: ModelDir,
    data: Annotated[
        Path,
        typer.Option("--data", help="Prompts or dialogues (their users' turns are asked), or a run's data directory."),
    ],
    out: Out,
    held_out: Annotated[
        Path | None,
        typer.Option("--held-out", help="Prompts of the evaluation; default: --data (of a directory, its own)."),
    ] = None,
    bank: Annotated[
        list[str] | None, typer.Option("--bank", help="general, words, or a YAML file of your own; repeatable.")
    ] = None,
    where: Annotated[
        Literal["system", "user"] | None,
        typer.Option(help="The instruction is the system message, or joined to the user's."),
    ] = None,
    dialogues: Annotated[int | None, typer.Option(help="Dialogues to sample.")] = None,
    turns: Annotated[int | None, typer.Option(help="Turns of the longest one.")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Ghost Attention: instructions that hold for a whole dialogue (paper 3.3); then asked turn by turn, before and after."""
    from ayni.report import ghost as figures
    from ayni.stages import ghost as stage
    from ayni.stages import ghost_turns

    values = {"bank": bank, "where": where, "dialogues": dialogues, "max_turns": turns}
    settings = settings_of(GhostSettings, values, lr, set_)
    stage.run(settings, data, model, out, seed=seed)
    evaluated = out.with_name(f"{out.name}-turns")
    ghost_turns.run(settings, held_out or data, model, out, evaluated, seed=seed)
    picture = figures.picture(evaluated, out.with_name(f"{out.name}-turns.svg"))
    done(out, f"ayni chat {model} {out} --system 'Always act as Napoleon from now on.'", f"open {picture}")


@app.command(
    epilog="Examples: ayni attacks --split train --out attacks.jsonl; "
    "ayni distill models/v3 --reward models/safety --prompts attacks.jsonl --out models/v3-safe | "
    "ayni distill models/v3 --reward models/safety --prompts attacks.jsonl --preprompt template --bank general --bank mine.yaml --out models/v3-safe | "
    "ayni distill runs/tiny/v2_ppo --reward runs/tiny/v2_reward_safety --prompts runs/tiny/data --bank words --out models/safe"
)
def distill(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Chat model that samples and is fine-tuned.")],
    reward: Annotated[Path, typer.Option("--reward", help="Safety reward model.")],
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts", help="Adversarial prompts (rows tagged prompt_kind safety), or a run's data directory."
        ),
    ],
    out: Out,
    preprompt: Annotated[
        Literal["generic", "template", "none"] | None,
        typer.Option(help="Any of the bank's, that of the risk category, or none to compare with; default: generic."),
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="Keep an answer only where it scores above the original.")
    ] = True,
    bank: Annotated[
        list[str] | None,
        typer.Option("--bank", help="Preprompts: general, words, or a YAML file of your own; repeatable, joined."),
    ] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Safety context distillation: sample under a safety preprompt, train without it (paper 4.2.4)."""
    from ayni.report import distillation as report
    from ayni.stages import distillation as stage

    values = {"preprompt": preprompt, "gate": gate, "bank": bank}
    settings = settings_of(DistillationSettings, values, lr, set_)
    stage.run(settings, prompts, model, reward, out, seed=seed)
    report.show(out)
    done(out, f"ayni chat {model} {out}", f"ayni redteam {model} {out}")
