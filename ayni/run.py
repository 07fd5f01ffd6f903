"""A recipe, from raw text to the last model: the table of contents of the whole project.

    data -> tokenizer -> shards -> base -> sft -> [preferences -> reward models -> rejection sampling -> PPO] x versions
            (context distillation at the end of a version, Ghost Attention after one, where the recipe asks for them)
         -> evaluation of every checkpoint -> results.json -> report.html

Every arrow is a directory on disk. A finished stage is found and skipped; a killed one goes on where it stood. What
results.json holds, a version at a time, stands at the head of record.py.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from ayni import report, status, telemetry
from ayni.artifacts import read_json, write_json
from ayni.config import GhostSettings, RejectionSettings
from ayni.recipe import Recipe, RecipeGhost, VersionSettings
from ayni.record import Run, Version, previous_of, results, samples
from ayni.scoring.reward import Scorers
from ayni.stages import data as data_stage
from ayni.stages import (
    distillation,
    evaluate,
    ghost,
    ghost_turns,
    importing,
    ppo,
    preferences,
    pretrain,
    rejection,
    reward,
    sft,
    shards,
    temperature,
    tokenizer,
    versus,
)
from ayni.stages.preferences import Variant

AGAIN = 1000  # added to a version's seed for the sampling after PPO, so that it draws prompts of its own


def run(recipe: Recipe, directory: Path) -> Path:
    """Runs (or goes on with) a recipe in `directory`; returns the report's path."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    run = Run(recipe, directory)
    directory.mkdir(parents=True, exist_ok=True)
    with only_run_in(directory):
        return _run(run)


def _run(run: Run) -> Path:
    recipe, directory = run.recipe, run.directory
    data = run.step("Data", "data", data_stage.run, recipe.data, seed=run.seed)
    base = from_checkpoint(run) if recipe.fetch else from_raw_text(run, data)
    variants = fine_tune(run, data, base)
    train_guard(run, data)
    versions(run, data, variants)
    evaluate_all(run, data)
    page = report.build(directory)
    status.finish(directory)
    telemetry.show(*report.last_screen(directory))
    if recipe.fetch:
        report.print_samples(directory, n=20)
    return page


@contextmanager
def only_run_in(directory: Path) -> Iterator[None]:
    """Two runs in one directory would build the same artifacts under each other; the lock goes with the process."""
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{directory}: another `ayni run` is at work here; wait for it, or choose another --out"
            ) from None
        yield


def from_raw_text(run: Run, data: Path) -> Path:
    """Tokenizer, packed shards, pretraining (paper 2)."""
    recipe, seed = run.recipe, run.seed
    corpus, held_out = data / "corpus", data / "corpus_heldout"
    pieces = run.step("Tokenizer", "tokenizer", tokenizer.run, recipe.tokenizer, corpus, seed=seed)
    packed = run.step("Shards", "shards", shards.run, recipe.shards, pieces, corpus, held_out, seed=seed)
    return run.step("Pretraining", "base", pretrain.run, recipe.pretrain, pieces, packed, seed=seed)


def from_checkpoint(run: Run) -> Path:
    """A real model to start from."""
    return run.step("Fetch the checkpoint", "base", importing.run, run.recipe.fetch, seed=run.seed)


def fine_tune(run: Run, data: Path, base: Path) -> list[Variant]:
    """SFT (paper 3.1), and the second variant that the first preferences need."""
    recipe, seed, chats, clean = run.recipe, run.seed, data / "sft.jsonl", data / "sft_clean.jsonl"
    run.models["base"] = base
    model = run.models["sft"] = run.step("SFT", "sft", sft.run, recipe.sft, base, chats, seed=seed)
    if recipe.clean_control and clean.is_file():
        title = "Control arm: SFT on demonstrations cleaned of the planted faults"
        run.models["sft_clean"] = run.step(title, "sft_clean", sft.run, recipe.sft, base, clean, seed=seed)
    if recipe.fetch:  # the checkpoint is a chat model already: before and after SFT are the two variants
        return [Variant("sft", model), Variant("base", base)]
    shorter = recipe.sft.model_copy(update={"epochs": 1})
    early = run.step("SFT, a second variant", "sft_early", sft.run, shorter, base, chats, seed=seed + 1)
    return [Variant("sft", model), Variant("sft_early", early)]


def train_guard(run: Run, data: Path) -> None:
    """A reward model on a general open set, trained once: a guard against drift (paper 3.4.1)."""
    if run.recipe.guard is None:
        return
    title, name = "Guard reward model", "reward_guard"
    settings, model = run.recipe.guard, run.models["sft"]
    run.guard = run.step(title, name, reward.run, settings, "guard", model, [], data=data, seed=run.seed)
    run.reward_models.append(("guard", run.guard))


def versions(run: Run, data: Path, variants: list[Variant]) -> None:
    """V1..V5 (paper 3.2.3): fresh preferences, refreshed reward models, the sampling temperature tuned anew, rejection
    sampling; PPO on top where asked, and sampling again after it. What each left is in results.json's `versions`."""
    latest, previous = run.models["sft"], "sft"
    earlier: list[Path] = []  # rejection-sampling artifacts so far, with their top samples
    rounds = [version.preferences for version in run.recipe.versions]
    for number, version in enumerate(run.recipe.versions, start=1):
        name, seed = version.name, run.seed + number
        gathered = run.step(
            f"{name}: preferences",
            f"{name}_preferences",
            preferences.run,
            version.preferences,
            data,
            variants[: version.preferences.variants],
            number=number,
            rounds=rounds,
            seed=run.seed,
        )
        run.preferences.append(gathered)
        rewards = {
            kind: run.step(
                f"{name}: {kind} reward model",
                f"{name}_reward_{kind}",
                reward.run,
                version.reward,
                kind,
                latest,
                run.preferences,
                data=data,
                seed=seed,
            )
            for kind in ("helpfulness", "safety")
        }
        run.reward_models += [(f"{name} {kind}", path) for kind, path in rewards.items()]
        scorers = Scorers(**rewards, guard=run.guard)
        done = Version(name, previous, gathered, scorers, version.reward.row_len)
        run.versions.append(done)
        done.temperature, done.rejection = sample_the_best(
            run, data, version, version.rejection, latest, scorers, earlier, number=number, seed=seed
        )
        earlier.append(done.rejection)
        latest = done.rejection
        if version.ppo is not None:
            run.models[f"{name}_rejection"] = latest
            latest = run.step(f"{name}: PPO", f"{name}_ppo", ppo.run, version.ppo, data, latest, scorers, seed=seed)
            done.ppo = latest
        if version.after_ppo is not None:
            run.models[f"{name}_ppo"] = latest
            done.temperature_after_ppo, done.after_ppo = sample_the_best(
                run, data, version, version.after_ppo, latest, scorers, earlier, number=number, seed=seed + AGAIN, after="_after_ppo"
            )  # fmt: skip
            earlier.append(done.after_ppo)
            latest = done.after_ppo
        if version.distillation is not None:
            before, words = latest, f"{name}: context distillation"
            latest = run.step(words, f"{name}_distillation", distillation.run, version.distillation, data, before, rewards["safety"], seed=seed)  # fmt: skip
            done.distillation = latest
            run.models[done.checkpoints[-2]] = before
        run.models[name] = latest
        previous = name
        if run.recipe.ghost is not None and run.recipe.ghost.after == name:
            latest = run.models[f"{name}_ghost"] = ghost_attention(run, data, run.recipe.ghost, latest, seed=seed)
        variants = [Variant(name, latest), *variants]  # the newest model first


def ghost_attention(run: Run, data: Path, settings: RecipeGhost, latest: Path, *, seed: int) -> Path:
    """Ghost Attention on top of a version (paper 3.3), and its evaluation turn by turn; the model that it made."""
    own = GhostSettings(**settings.model_dump(exclude={"after"}))
    run.ghost = run.step(f"{settings.after}: Ghost Attention", "ghost", ghost.run, own, data, latest, seed=seed)
    run.step("Evaluation: turn by turn", "eval/ghost", ghost_turns.run, own, data, latest, run.ghost, seed=run.seed)
    return run.ghost


def sample_the_best(
    run: Run,
    data: Path,
    version: VersionSettings,
    settings: RejectionSettings,
    latest: Path,
    scorers: Scorers,
    earlier: list[Path],
    *,
    number: int,
    seed: int,
    after: Literal["", "_after_ppo"] = "",
) -> tuple[Path | None, Path]:
    """The temperature sweep, where asked, and rejection sampling at the temperature it chose; their directories."""
    words = f"{version.name}: after PPO," if after else f"{version.name}:"
    tuned = None
    if version.temperature is not None:
        tuned = run.step(
            f"{words} sampling temperature",
            f"{version.name}_temperature{after}",
            temperature.run,
            version.temperature,
            data,
            settings.sampler or latest,
            scorers,
            max_new_tokens=settings.max_new_tokens,
            row_len=settings.row_len,
            seed=seed,
        )
        settings = settings.model_copy(update={"temperature": temperature.chosen(tuned)})
    best = run.step(
        f"{words} rejection sampling",
        f"{version.name}{after or '_rejection'}",
        rejection.run,
        settings,
        data,
        latest,
        run.models["sft"],
        scorers,
        earlier,
        version=number,
        seed=seed,
        ghost=run.ghost,
    )
    return tuned, best


def evaluate_all(run: Run, data: Path) -> None:
    """Every checkpoint and every constant policy on the same prompts; then results.json and samples.json."""
    settings, seed, model = run.recipe.evaluate, run.seed, run.models["sft"]
    against = run.step("Evaluation: sft", "eval/sft", evaluate.run, settings, data, "sft", model, seed=seed)
    with_sft = {"sft": model, "sft_evaluation": against}
    evaluations = {"sft": against}
    for name, path in run.models.items():
        if name != "sft":
            style = "completion" if name == "base" and not run.recipe.fetch else "chat"
            evaluations[name] = run.step(
                f"Evaluation: {name}",
                f"eval/{name}",
                evaluate.run,
                settings,
                data,
                name,
                path,
                seed=seed,
                style=style,
                **with_sft,
            )
    constant_policies = read_json(data / "about.json").get("constant_policies", {})
    for name, text in constant_policies.items():
        evaluations[name] = run.step(
            f"Evaluation: {name}",
            f"eval/{name}",
            evaluate.run,
            settings,
            data,
            name,
            None,
            seed=seed,
            constant=text,
            **with_sft,
        )
    ceiling = run.step("Best of K", "eval/best_of_k", evaluate.best_of_k, settings, data, model, seed=seed)
    title = "Annotators against the judge"
    agreed = run.step(title, "eval/agreement", evaluate.agreement, settings, data, run.preferences, seed=seed)
    compared_with = {name: previous_of(run, name) for name in evaluations}
    last = run.versions[-1] if run.versions else None
    compared = run.step(
        "Versions against each other",
        "eval/versus",
        versus.run,
        data,
        evaluations,
        compared_with,
        last.scorers if last else None,
        row_len=last.row_len if last else 0,
        seed=seed,
    )
    order = [*run.models, *constant_policies]
    write_json(run.at("results.json"), results(run, order, evaluations, compared, ceiling, agreed))
    write_json(run.at("samples.json"), samples(run, evaluations, compared))
