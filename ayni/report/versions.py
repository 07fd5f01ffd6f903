"""What each version of a run left behind (V1, V2, ...), read from the artifacts by their names; parts may be missing.

NAME_preferences/summary.json       counts by strength, annotator, safety label; what was dropped
NAME_reward_KIND/accuracy.json      accuracy by strength, domain and kind of error; the gate; calibration
NAME_rejection/rewards.json         best and median reward among the first k answers
NAME_rejection/samples.jsonl        the answers that were picked, with their rewards
NAME_temperature/temperature.json   the sweep that chose the sampling temperature
NAME_after_ppo, NAME_temperature_after_ppo: the same, sampled again after PPO
NAME_distillation/summary.json      answers sampled under a preprompt and kept (results.json has it)
NAME_ppo/history.json               a row per iteration (or its log)
eval/NAME/                          metrics, answers and verdicts
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.artifacts import read_json
from ayni.report import results as read

Row = dict[str, Any]
PARTS = re.compile(r"(.+?)_(preferences|reward_\w+|rejection|ppo|distillation)")
PICKED = 6  # targets of rejection sampling that a page shows
# (directory of the sampling, directory of its temperature sweep, words)
SAMPLINGS = (("_rejection", "_temperature", "Sampling"), ("_after_ppo", "_temperature_after_ppo", "Sampling after PPO"))


@dataclass(frozen=True)
class Sampling:
    """K answers a prompt, the best of them picked."""

    title: str
    summary: Row  # temperature, k, prompts, targets
    rewards_by_k: list[Row]
    sweep: Row  # `points` (a temperature and a k: max, median), `chosen`
    picked: list[Row]


@dataclass(frozen=True)
class Version:
    """One version's files. `beside`: the checkpoints that its figures are held against, the oldest first."""

    name: str
    preferences: Row
    reward_models: list[Row]
    samplings: list[Sampling]
    ppo: list[Row]
    curves: dict[str, list[Row]]  # of its other stages that trained
    checkpoint: Row | None
    beside: list[Row]
    scores: dict[str, dict[str, Row]]  # checkpoint -> prompt id -> what the judge said of its answer

    @property
    def names(self) -> list[str]:
        """The checkpoints whose answers stand side by side, this version's last."""
        return [c["name"] for c in self.beside] + ([self.checkpoint["name"]] if self.checkpoint else [self.name])


def versions(run: read.Run) -> list[Version]:
    """The versions in the order in which they came to be."""
    found = []
    start = list(
        dict.fromkeys(c["name"] for c in (read.before(run.results), read.by_name(run.checkpoints, "sft")) if c)
    )
    entries = {str(entry.get("name")): entry for entry in run.results.get("versions") or []}
    previous = "sft"
    for name in version_names(run):
        checkpoint, entry = read.by_name(run.checkpoints, name), entries.get(name, {})
        own = entry.get("checkpoints") or [f"{name}_rejection", f"{name}_ppo"]
        names = dict.fromkeys([*start, entry.get("previous") or previous, *own])
        beside = [c for other in names if (c := read.by_name(run.checkpoints, other)) and other != name]
        found.append(_version(run, name, checkpoint, beside))
        previous = name
    return found


def version_names(run: read.Run) -> list[str]:
    """As the recipe lists them; without a recipe, as the directories are called."""
    listed = (run.results.get("settings") or {}).get("versions") or []
    names = [str(v["name"]) for v in listed if isinstance(v, dict) and v.get("name")]
    if not names:
        matches = (PARTS.fullmatch(path.name) for path in sorted(run.directory.iterdir()) if path.is_dir())
        names = list(dict.fromkeys(match.group(1) for match in matches if match))
    return names


def belongs_to(stage: str, names: list[str]) -> str | None:
    """The version that a stage's directory is part of."""
    return next((name for name in sorted(names, key=len, reverse=True) if stage.startswith(f"{name}_")), None)


def _version(run: read.Run, name: str, checkpoint: Row | None, beside: list[Row]) -> Version:
    curves = {stage: rows for stage, rows in run.curves.items() if belongs_to(stage, version_names(run)) == name}
    ppo = curves.pop(f"{name}_ppo", None) or _rows(_optional(run.directory / f"{name}_ppo" / "history.json"))
    compared = [*beside, *([checkpoint] if checkpoint else [])]
    return Version(
        name=name,
        preferences=_optional(run.directory / f"{name}_preferences" / "summary.json") or {},
        reward_models=_reward_models(run.directory, name),
        samplings=[s for parts in SAMPLINGS if (s := _sampling(run.directory, name, *parts))],
        ppo=ppo,
        curves=curves,
        checkpoint=checkpoint,
        beside=beside,
        scores={c["name"]: _scores(run.directory / "eval" / c["name"]) for c in compared},
    )


def _reward_models(directory: Path, name: str) -> list[Row]:
    found = []
    for path in sorted(directory.glob(f"{name}_reward_*/accuracy.json")):
        accuracy = _optional(path)
        if isinstance(accuracy, dict):
            found.append({**accuracy, "name": path.parent.name.removeprefix(f"{name}_reward_")})
    return found


def _sampling(directory: Path, name: str, part: str, sweep: str, title: str) -> Sampling | None:
    at = directory / f"{name}{part}"
    found = Sampling(
        title=title,
        summary=_optional(at / "summary.json") or {},
        rewards_by_k=_rows(_optional(at / "rewards.json")),
        sweep=_optional(directory / f"{name}{sweep}" / "temperature.json") or {},
        picked=_picked(at / "samples.jsonl"),
    )
    return found if found.rewards_by_k or found.sweep or found.picked else None


def _picked(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(PICKED))]
    return [row for row in rows if row.get("messages")]


def _scores(evaluation: Path) -> dict[str, Row]:
    """Prompt id -> the verdict on the answer, its length, and whatever figure the answer's row carries."""
    if not (evaluation / "answers.jsonl").is_file():
        return {}
    answers = list(_lines(evaluation / "answers.jsonl"))
    verdicts = _optional(evaluation / "verdicts.json") or []
    verdicts = verdicts if len(verdicts) == len(answers) else [{}] * len(answers)
    return {
        str(row["id"]): {**_figures(verdict), **_figures(row)}
        for row, verdict in zip(answers, verdicts)
        if row.get("id") is not None
    }


def _figures(row: Row) -> Row:
    return {key: value for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as stream:
        yield from (json.loads(line) for line in stream if line.strip())


def _rows(found: Any) -> list[Row]:
    """A list of rows, or the one list inside an object (`points`, `rows`, ...)."""
    if isinstance(found, dict):
        found = next((value for value in found.values() if isinstance(value, list)), [])
    return [row for row in found or [] if isinstance(row, dict)]


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
