"""Who labelled what a model learned from, read from manifests; and whether a judge shares anything with them (TRAPS 24).

A model's manifest names its inputs, theirs name theirs, down to files. On the way labels came from

    annotator plug-ins     the preference stage's `annotators`, a red team's eyes
    annotators by name     of preferences in files, as their rows say
    reward models          that rejection sampling or PPO tuned towards, and their own labellers

What cannot be followed (a model from elsewhere, an input that is gone or another by now) is told, not refused.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ayni.artifacts import content_hash, is_artifact, read_manifest
from ayni.text.sources import read_rows

TUNED_TOWARDS = ("helpfulness", "safety")  # roles of reward models; nothing is trained on a `guard`
SCORERS = "ayni.scoring."  # text scorers that annotators and judges might share


@dataclass
class Lineage:
    """`unknown`: what could not be followed, in words."""

    plugins: set[str] = field(default_factory=set)  # annotator plug-ins
    names: set[str] = field(default_factory=set)  # annotators in files
    rewards: dict[str, str] = field(default_factory=dict)  # hash -> directory's name
    unknown: list[str] = field(default_factory=list)

    def add(self, other: Lineage) -> None:
        self.plugins |= other.plugins
        self.names |= other.names
        self.rewards |= other.rewards
        self.unknown += [each for each in other.unknown if each not in self.unknown]


def lineage(model: Path) -> Lineage:
    """Of everything that `model` was made of."""
    found = Lineage()
    seen: set[Path] = set()
    waiting: list[tuple[Path, str]] = [(model, "")]
    while waiting:
        path, role = waiting.pop()
        if role.startswith(("preferences", "open preferences")) and not is_artifact(path):
            found.names |= _annotators(path)
        path = _holder(path.resolve())
        if path in seen:
            continue
        seen.add(path)
        if not is_artifact(path):
            if role in ("", "model", "start", "latest"):
                found.unknown.append(f"{path.name} was not made by Ayni: what it learned from is not on record")
            continue
        manifest = read_manifest(path)
        settings = manifest.get("settings") or {}
        if manifest["stage"] == "preferences":
            found.plugins.add(str(settings["annotators"]))
        elif manifest["stage"] == "redteam":
            found.plugins.add(str(settings.get("eyes") or settings["judge"]))
        elif manifest["stage"] == "import":
            found.unknown.append(f"{path.name} was imported: what it learned from before is not on record")
        for name, given in manifest.get("inputs", {}).items():
            if name == "guard":
                continue
            source = path / given["path"]
            if name in TUNED_TOWARDS:
                found.rewards[given["hash"]] = source.name
            if not source.exists() or content_hash(source) != given["hash"]:
                found.unknown.append(f"{path.name}: its input {given['path']} is gone, or another by now")
                continue
            waiting.append((source, name))
    return found


def _holder(path: Path) -> Path:
    """The artifact that a file stands in, else the path itself."""
    return next((parent for parent in (path, *path.parents[:2]) if is_artifact(parent)), path)


def _annotators(path: Path) -> set[str]:
    """Names in the rows of a file or folder of preferences."""
    names = {str(row.get("annotator", row.get("judge", "unknown"))) for _, row in read_rows(path)}
    return names - {"unknown"}


# ---- what a judge shares with them -----------------------------------------------------------------------------------


def shared_by_plugin(judge: str, models: Lineage) -> list[str]:
    """A plug-in judge shares what its code imports: an annotator's module, or a text scorer of ours that one uses too."""
    own = _modules(_module_of("judges", judge))
    out = []
    for annotator in sorted(models.plugins):
        module = _module_of("annotators", annotator)
        if module is None:
            models.unknown.append(f"the annotator plug-in {annotator!r} is not installed here: its code is not known")
            continue
        if module in own:
            out.append(f"judge {judge!r} uses the code of the annotators {annotator!r} ({module})")
        both = sorted(name for name in own & _modules(module) if name.startswith(SCORERS))
        if both:
            out.append(f"judge {judge!r} and the annotators {annotator!r} share {', '.join(both)}")
    return out


def shared_by_reward(directory: Path, models: Lineage) -> list[str]:
    """A reward model shares itself, if a model was tuned towards it, and whoever labelled what it learned from."""
    out = []
    if content_hash(directory) in models.rewards:
        out.append(f"{directory.name} is a reward model that a compared model was tuned towards")
    own = lineage(directory)
    out += [f"{directory.name} learned from the annotators {name!r}, and so did a compared model" for name in sorted(own.plugins & models.plugins)]  # fmt: skip
    out += [f"{directory.name} learned from {name}'s preferences, and so did a compared model" for name in sorted(own.names & models.names)]  # fmt: skip
    models.unknown += [each for each in own.unknown if each not in models.unknown]
    return out


def shared_by_name(names: Iterable[str], models: Lineage) -> list[str]:
    """A person, or a model behind an endpoint, who labelled training data by that name."""
    return [f"{name} labelled preferences that a compared model learned from" for name in sorted(set(names) & models.names)]  # fmt: skip


def _module_of(group: str, name: str) -> str | None:
    return next((entry.module for entry in entry_points(group=f"ayni.{group}") if entry.name == name), None)


def _modules(module: str | None, seen: set[str] | None = None) -> set[str]:
    """A module and all that it imports of its own package and of ours, directly or through others; nothing is run."""
    seen = set() if seen is None else seen
    if module is None or module in seen:
        return seen
    file = _file_of(module)
    if file is None:
        return seen
    seen.add(module)
    packages = {module.split(".")[0], "ayni"}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for name in _imported(node, module):
            if name.split(".")[0] in packages:
                _modules(name, seen)
    return seen


def _file_of(module: str) -> Path | None:
    """Found by its place: to ask Python for the spec of a submodule would import what is above it."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if not inner else None
    for folder in map(Path, spec.submodule_search_locations):
        for file in (folder.joinpath(*inner, "__init__.py"), folder.joinpath(*inner).with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _imported(node: Any, module: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]
