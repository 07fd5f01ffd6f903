"""All studies by name. A study's file is `GROUP/NAME.py` (dashes become underscores) and defines `STUDY`."""

from __future__ import annotations

from importlib import import_module
from typing import get_args

from ayni.studies.study import Group, Study

BY_GROUP: dict[Group, tuple[str, ...]] = {
    "pretraining": ("gqa", "context", "tokenizer", "mixture", "beyond-optimal", "sft-quality", "curriculum"),
    "reward": ("margin", "safety-aux", "reward-calibration", "one-or-two-reward-models", "reward-scaling"),
    "rlhf": (
        "best-of-k",
        "temperature",
        "versions",
        "carry-over",
        "gate",
        "kl",
        "ppo-after-rejection",
        "clean-demonstrations",
        "ppo-or-dpo",
    ),
    "safety": ("ghost-attention", "context-distillation", "safety-scaling"),
    "real": ("margin-real",),
}


def names(group: Group | None = None) -> list[str]:
    """Every study of a group, or of all groups, in the order in which they run."""
    return [name for key, members in BY_GROUP.items() if group in (None, key) for name in members]


def study(name: str) -> Study:
    """ValueError for a name that is not in the catalogue."""
    group = next((key for key, members in BY_GROUP.items() if name in members), None)
    if group is None:
        raise ValueError(f"no study is called {name!r}; known: {', '.join(names())}; groups: {', '.join(BY_GROUP)}")
    found: Study = import_module(f"ayni.studies.{group}.{name.replace('-', '_')}").STUDY
    assert found.name == name, f"{name}: the file defines a study called {found.name}"
    assert found.group == group
    return found


def group_named(name: str) -> Group:
    """ValueError for a group that does not exist."""
    for group in get_args(Group):
        if group == name and group in BY_GROUP:
            return group
    raise ValueError(f"no group of studies is called {name!r}; known: {', '.join(BY_GROUP)}")
