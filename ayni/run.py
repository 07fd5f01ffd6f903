"""A recipe, from raw text to the last model: the table of contents of the whole project.

    data -> tokenizer -> shards -> base -> sft -> [preferences -> reward models -> rejection sampling -> PPO] x versions
         -> evaluation of every checkpoint -> results.json -> report.html

Every arrow is a directory on disk. A finished stage is found and skipped; a killed one goes on where it stood.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ayni import report, status, telemetry
from ayni.artifacts import Artifact, read_json, write_json
from ayni.config import Recipe
from ayni.scoring.reward import Scorers
from ayni.stages import data as data_stage
from ayni.stages import evaluate, importing, ppo, preferences, pretrain, rejection, reward, sft, shards, tokenizer
from ayni.stages.preferences import Variant
from ayni.text.sources import read_jsonl


@dataclass
class Run:
    """Where the run stands: its directory, and the models in the order in which they came to be."""

    recipe: Recipe
    directory: Path
    models: dict[str, Path] = field(default_factory=dict)  # checkpoint name -> model directory
    reward_models: list[tuple[str, Path]] = field(default_factory=list)
    preferences: list[Path] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return self.recipe.seed

    def at(self, name: str) -> Path:
        return self.directory / name

    def step(self, title: str, name: str, stage: Callable[..., Artifact], *inputs: Any, **options: Any) -> Path:
        """Runs one stage under a heading and keeps its time and peak memory."""
        telemetry.heading(title)
        telemetry.reset_peak_memory()
        started = time.monotonic()
        with status.stage(self.directory, name, title):
            artifact = stage(*inputs, out=self.at(name), **options)
        if artifact.fresh:
            telemetry.record_timing(self.directory, name, time.monotonic() - started, telemetry.peak_memory_bytes())
        else:
            telemetry.say("  done before")
        return artifact.path


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


def versions(run: Run, data: Path, variants: list[Variant]) -> None:
    """V1..V5 (paper 3.2.3): fresh preferences, refreshed reward models, rejection sampling, PPO on top where asked."""
    latest = run.models["sft"]
    earlier: list[Path] = []  # rejection-sampling artifacts of the versions before, with their top samples
    for number, version in enumerate(run.recipe.versions, start=1):
        name, seed = version.name, run.seed + number
        gathered = run.step(
            f"{name}: preferences",
            f"{name}_preferences",
            preferences.run,
            version.preferences,
            data,
            variants,
            number=number,
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
        scorers = Scorers(**rewards)
        best = run.step(
            f"{name}: rejection sampling",
            f"{name}_rejection",
            rejection.run,
            version.rejection,
            data,
            latest,
            run.models["sft"],
            scorers,
            earlier,
            version=number,
            seed=seed,
        )
        earlier.append(best)
        latest = best
        if version.ppo is not None:
            run.models[f"{name}_rejection"] = best
            latest = run.step(f"{name}: PPO", f"{name}_ppo", ppo.run, version.ppo, data, best, scorers, seed=seed)
        run.models[name] = latest
        variants = [Variant(name, latest), variants[0]]  # the newest model and the one before


def evaluate_all(run: Run, data: Path) -> None:
    """Every checkpoint and every constant policy on the same prompts; then results.json and samples.json."""
    settings, seed, model = run.recipe.evaluate, run.seed, run.models["sft"]
    against = run.step("Evaluation: sft", "eval/sft", evaluate.run, settings, data, "sft", model, seed=seed)
    compared = {"sft": model, "sft_evaluation": against}
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
                **compared,
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
            **compared,
        )
    ceiling = run.step("Best of K", "eval/best_of_k", evaluate.best_of_k, settings, data, model, seed=seed)
    title = "Annotators against the judge"
    agreed = run.step(title, "eval/agreement", evaluate.agreement, settings, data, run.preferences, seed=seed)
    order = [*run.models, *constant_policies]
    write_json(run.at("results.json"), _results(run, order, evaluations, ceiling, agreed))
    write_json(run.at("samples.json"), _samples(run, evaluations))


def _results(run: Run, order: list[str], evaluations: dict[str, Path], ceiling: Path, agreed: Path) -> dict[str, Any]:
    paths = {name: str(path.relative_to(run.directory)) for name, path in run.models.items()}
    return {
        "name": run.recipe.name,
        "seed": run.seed,
        "checkpoints": [
            {"name": name, "path": paths.get(name), "metrics": read_json(evaluations[name] / evaluate.METRICS)}
            for name in order
        ],
        "latest": list(paths.values())[-1],
        "best_of_k": read_json(ceiling / "ceiling.json"),
        "annotators": _agreement(read_json(agreed / "agreement.json")),
        "reward_models": [{"name": name, **read_json(path / reward.ACCURACY)} for name, path in run.reward_models],
        "settings": run.recipe.model_dump(mode="json"),
    }


def _agreement(report: dict[str, Any]) -> dict[str, Any]:
    """Agreement with the judge: a row for each annotator, then a figure for each strength."""
    by_annotator = {row.pop("annotator"): {"agreement": row} for row in report["by_annotator"]}
    return by_annotator | {f"all, {row.pop('strength')}": row for row in report["by_strength"]}


def _samples(run: Run, evaluations: dict[str, Path]) -> dict[str, Any]:
    """The same held-out prompts answered by every trained checkpoint, an even number from every task."""
    answers = {name: read_jsonl(evaluations[name] / evaluate.ANSWERS) for name in run.models}
    first = answers["sft"]
    tasks = list(dict.fromkeys(row["task"] for row in first))
    per_task = max(1, run.recipe.evaluate.samples // len(tasks))
    chosen: list[int] = []
    for task in tasks:
        of_task = [i for i, row in enumerate(first) if row["task"] == task]
        chosen += of_task[:: max(1, len(of_task) // per_task)][:per_task]
    return {
        "rows": [
            {
                **{key: first[i][key] for key in ("id", "task", "messages")},
                "answers": {name: rows[i]["answer"] for name, rows in answers.items()},
                "labels": {name: rows[i]["label"] for name, rows in answers.items()},
            }
            for i in chosen
        ]
    }
