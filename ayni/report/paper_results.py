"""What `ayni tables` reads: results of suites, reward models, studies, Ghost Attention and contamination, known by their files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ayni.artifacts import MANIFEST, read_json

Row = dict[str, Any]
FILES = ("results.json", "accuracy.json", "result.json", "turns.json", "contamination.json")


@dataclass(frozen=True)
class Measured:
    """One task of one model. `task`: what its figure is made of (stages/suite.py's `about`)."""

    figure: Row
    task: Row
    where: Path


@dataclass
class Found:
    """Everything measured. `suites`: (model, template) -> task -> what; `accuracy`: a reward model's name -> its report."""

    suites: dict[tuple[str, str], dict[str, Measured]] = field(default_factory=dict)
    accuracy: dict[str, Row] = field(default_factory=dict)
    studies: dict[str, Row] = field(default_factory=dict)
    turns: dict[str, Row] = field(default_factory=dict)
    contamination: list[tuple[str, Row]] = field(default_factory=list)


def read(paths: Sequence[Path]) -> Found:
    """Results under all paths, directories that hold some or directories of such. ValueError for a path without any, and where two
    results measure the same thing of the same model."""
    found, models = Found(), _Names()
    for path in paths:
        files = (
            [file for name in FILES for file in sorted(path.rglob(name)) if not _hidden(file, path)]
            if path.is_dir()
            else []
        )
        if not sum(_take(file, found, models) for file in files):
            raise ValueError(
                f"{path}: no results in it; expected a directory that `ayni eval --suite`, `ayni reward`, `ayni study`, `ayni ghost` or "
                "`ayni contamination` wrote, or a folder of such"
            )  # fmt: skip
    return found


class _Names:
    """Names for models: the directory's, or with more of its path where two different ones are called the same."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}

    def name(self, identity: str, path: Path) -> str:
        parts = path.parts[-3:]
        for length in range(1, len(parts) + 1):
            name = "/".join(parts[-length:])
            if self.by_name.setdefault(name, identity) == identity:
                return name
        name = f"{name} {identity[:8]}"
        self.by_name[name] = identity
        return name


def _hidden(file: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(below).parts)


def _take(file: Path, found: Found, models: _Names) -> bool:
    """Whether the file was one of ours, and is in `found` now."""
    here, content = file.parent, read_json(file)
    if not isinstance(content, dict):
        return False
    manifest = read_json(here / MANIFEST) if (here / MANIFEST).is_file() else {}
    if file.name == "results.json" and manifest.get("stage") == "suite":
        source = manifest["inputs"]["model"]
        model = models.name(source["hash"], Path(os.path.normpath(here / source["path"])))
        [checkpoint] = content["checkpoints"]
        for task in content["tasks"]:
            known = found.suites.setdefault((model, task["template"]), {})
            if task["task"] in known:
                raise ValueError(
                    f"{known[task['task']].where} and {here} both measure {task['task']} of {model} ({task['template']}); give one of them"
                )
            known[task["task"]] = Measured(checkpoint["metrics"][task["task"]], task, here)
        return bool(content["tasks"])
    if file.name == "accuracy.json" and str(manifest.get("stage", "")).startswith("reward-"):
        kind = manifest["stage"].removeprefix("reward-")
        found.accuracy[models.name(manifest["hash"], Path(os.path.abspath(here)))] = {
            **content,
            "kind": kind,
            "settings": manifest["settings"],
        }
        return True  # fmt: skip
    if file.name == "result.json" and "study" in content:
        if content["study"] in found.studies:
            raise ValueError(f"{here}: a second result of the study {content['study']}; give one of them")
        found.studies[content["study"]] = content
        return True
    if file.name == "turns.json" and "arms" in content:
        found.turns[models.name(manifest.get("hash", str(here)), Path(os.path.abspath(here)))] = content
        return True
    if file.name == "contamination.json" and "datasets" in content:
        found.contamination.append((here.name, content))
        return True
    return False
