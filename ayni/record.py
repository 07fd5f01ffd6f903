"""What a run has made so far, and results.json and samples.json made of it: files are read and put together, nothing
is computed.

`results.json["versions"]` has one entry a version, in order; all paths are relative to the run's directory.

    {"name": "v5",
     "previous": "v4",                       # the checkpoint it is compared with: the version before, sft for V1
     "checkpoints": ["v5_rejection", "v5_ppo", "v5"],  # its rows of results["checkpoints"], its own last
     "preferences": {"path": "v5_preferences", "summary": {...}},                        # summary.json of that stage
     "reward_models": {"helpfulness": {"path": "v5_reward_helpfulness", ...}, "safety": {...}},  # with accuracy.json
     "temperature": null | {"path": "v5_temperature", "chosen": 1.2, "k": 16,
                            "points": [{"temperature": 0.6, "k": 1, "max": ..., "median": ...}, ...],
                            "candidates": [{"temperature": 0.6, "best": {"value", "low", "high", "n", "unit"}, "ended": 0.97}, ...]},
     "rejection": {"path": "v5_rejection", "summary": {"temperature", "k", "prompts", "targets", "carried"},
                   "rewards": [{"k": 1, "max": ..., "median": ...}, ...]},
     "ppo": null | {"path": "v5_ppo", "history": "v5_ppo/history.json"},
     "after_ppo": null | {"temperature": null | as above, "rejection": as above, "path": "v5_after_ppo"},
     "distillation": null | {"path": "v5_distillation", "summary": {"sampled", "kept", "original", "distilled", "after", "categories", ...}},
     "metrics": {"facts_right": {"value", "low", "high", "n", "unit"}, ...}}             # of its own checkpoint

`results.json["ghost"]` is null, or {"path", "evaluation", "summary", "kept": turns.json of stages/ghost_turns.py}.

`temperature` is null where the recipe fixes it; `ppo`, `after_ppo` and `distillation` are null where the version has none. Each row of
`samples.json` also has `rewards`: {checkpoint: score} by the last version's reward model of the prompt's kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ayni import status, telemetry
from ayni.artifacts import Artifact, read_json
from ayni.evals.judging import ANSWERS
from ayni.recipe import Recipe
from ayni.scoring.reward import Scorers
from ayni.stages import distillation, evaluate, ghost, ghost_turns, rejection, reward, temperature, versus
from ayni.text.sources import read_jsonl


@dataclass
class Version:
    """The directories of one version; `previous`: the checkpoint that its models are compared with."""

    name: str
    previous: str
    preferences: Path
    scorers: Scorers
    row_len: int  # of the reward models
    temperature: Path | None = None
    rejection: Path | None = None
    ppo: Path | None = None
    temperature_after_ppo: Path | None = None
    after_ppo: Path | None = None
    distillation: Path | None = None

    @property
    def checkpoints(self) -> list[str]:
        """Names of the models it made, in order; the last is the version's own."""
        further = {"ppo": self.ppo, "after_ppo": self.after_ppo, "distillation": self.distillation}
        steps = ["rejection", *(step for step, path in further.items() if path is not None)]
        return [*(f"{self.name}_{step}" for step in steps[:-1]), self.name]


@dataclass
class Run:
    """Where the run stands: its directory, and the models in the order in which they came to be."""

    recipe: Recipe
    directory: Path
    models: dict[str, Path] = field(default_factory=dict)  # checkpoint name -> model directory
    reward_models: list[tuple[str, Path]] = field(default_factory=list)
    preferences: list[Path] = field(default_factory=list)
    guard: Path | None = None  # the reward model that nothing is tuned against
    versions: list[Version] = field(default_factory=list)
    ghost: Path | None = None  # what Ghost Attention made, once it has

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


def previous_of(run: Run, checkpoint: str) -> str | None:
    """The version before the one that made a checkpoint (sft for V1's); None for what no version made."""
    return next((version.previous for version in run.versions if checkpoint in version.checkpoints), None)


def results(
    run: Run, order: list[str], evaluations: dict[str, Path], compared: Path, ceiling: Path, agreed: Path
) -> dict[str, Any]:
    paths = {name: relative(run, path) for name, path in run.models.items()}
    against = read_json(compared / versus.FIGURES)
    metrics = {name: {**read_json(evaluations[name] / evaluate.METRICS), **against[name]} for name in order}
    return {
        "name": run.recipe.name,
        "seed": run.seed,
        "checkpoints": [{"name": name, "path": paths.get(name), "metrics": metrics[name]} for name in order],
        "latest": list(paths.values())[-1],
        "versions": [{**version_record(run, version), "metrics": metrics[version.name]} for version in run.versions],
        "ghost": ghost_record(run),
        "best_of_k": read_json(ceiling / "ceiling.json"),
        "annotators": _agreement(read_json(agreed / "agreement.json")),
        "reward_models": [{"name": name, **read_json(path / reward.ACCURACY)} for name, path in run.reward_models],
        "settings": run.recipe.model_dump(mode="json"),
    }


def version_record(run: Run, version: Version) -> dict[str, Any]:
    """A version's entry but for its metrics."""
    models = {"helpfulness": version.scorers.helpfulness, "safety": version.scorers.safety}
    after = version.after_ppo and {
        "path": relative(run, version.after_ppo),
        "temperature": _sweep(run, version.temperature_after_ppo),
        "rejection": _sampling(run, version.after_ppo),
    }
    return {
        "name": version.name,
        "previous": version.previous,
        "checkpoints": version.checkpoints,
        "preferences": {
            "path": relative(run, version.preferences),
            "summary": read_json(version.preferences / "summary.json"),
        },
        "reward_models": {
            kind: {"path": relative(run, path), **read_json(path / reward.ACCURACY)}
            for kind, path in models.items()
            if path is not None
        },
        "temperature": _sweep(run, version.temperature),
        "rejection": _sampling(run, version.rejection),
        "ppo": version.ppo
        and {"path": relative(run, version.ppo), "history": f"{relative(run, version.ppo)}/history.json"},
        "after_ppo": after,
        "distillation": version.distillation
        and {
            "path": relative(run, version.distillation),
            "summary": read_json(version.distillation / distillation.SUMMARY),
        },
    }


def ghost_record(run: Run) -> dict[str, Any] | None:
    """Ghost Attention's entry: its counts, and the shares kept turn by turn (turns.json of its evaluation)."""
    if run.ghost is None:
        return None
    evaluation = run.at("eval/ghost")
    return {
        "path": relative(run, run.ghost),
        "evaluation": relative(run, evaluation),
        "summary": read_json(run.ghost / ghost.SUMMARY),
        "kept": read_json(evaluation / ghost_turns.TURNS),
    }


def relative(run: Run, path: Path) -> str:
    return path.relative_to(run.directory).as_posix()


def _sweep(run: Run, path: Path | None) -> dict[str, Any] | None:
    return None if path is None else {"path": relative(run, path), **read_json(path / temperature.SWEEP)}


def _sampling(run: Run, path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    files = {"summary": read_json(path / rejection.SUMMARY), "rewards": read_json(path / rejection.REWARDS)}
    return {"path": relative(run, path), **files}


def _agreement(report: dict[str, Any]) -> dict[str, Any]:
    """Agreement with the judge: a row for each annotator, then a figure for each strength."""
    by_annotator = {row.pop("annotator"): {"agreement": row} for row in report["by_annotator"]}
    return by_annotator | {f"all, {row.pop('strength')}": row for row in report["by_strength"]}


def samples(run: Run, evaluations: dict[str, Path], compared: Path) -> dict[str, Any]:
    """The same held-out prompts answered by every trained checkpoint, an even number from every task."""
    rewards = {row["id"]: row["rewards"] for row in read_jsonl(compared / versus.REWARDS)}
    answers = {name: read_jsonl(evaluations[name] / ANSWERS) for name in run.models}
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
                "rewards": {name: rewards[first[i]["id"]].get(name) for name in answers},
            }
            for i in chosen
        ]
    }
