"""Prompts for sampling stages: where they lie, and drawing from them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni.text.sources import read_prompts, read_rows

LONG = "prompts_long.jsonl"  # beside prompts_train.jsonl: dialogues of many turns, where the data has some


def training_prompts(prompts: Path, *, long_dialogues: bool = False) -> list[dict[str, Any]]:
    """The rows of a file, or of a data directory's prompts_train.jsonl; with `long_dialogues` its prompts_long.jsonl too."""
    if not prompts.is_dir():
        return read_prompts(prompts)
    rows = read_prompts(prompts / "prompts_train.jsonl")
    return rows + read_prompts(prompts / LONG) if long_dialogues and (prompts / LONG).is_file() else rows


def adversarial_prompts(prompts: Path) -> tuple[list[dict[str, Any]], int]:
    """(rows that attack, how many others a data directory or the file had beside them).

    They are of kind "safety"; of these the look-alikes (task "borderline") are benign and stay out. A data directory's
    helpful prompts stay out too; in a file of the user's own one is a mistake, since distillation makes helpful answers
    worse (paper 4.2.4): ValueError names its line.
    """
    rows = training_prompts(prompts)
    if not prompts.is_dir():
        for (where, _), row in zip(read_rows(prompts), rows, strict=True):
            if row["prompt_kind"] != "safety":
                raise ValueError(
                    f"{where}: a helpful prompt (prompt_kind {row['prompt_kind']!r}); safety distillation is for adversarial prompts "
                    'alone, since it makes helpful answers worse: drop the row, or give it "prompt_kind": "safety" if it attacks'
                )
            if not isinstance(row["meta"], dict):
                raise ValueError(f'{where}: meta must be like {{"category": "..."}}, found {str(row["meta"])[:60]!r}')
    found = [row for row in rows if row["prompt_kind"] == "safety" and row["task"] != "borderline"]
    if not found:
        raise ValueError(f"{prompts}: no adversarial prompt in it (prompt_kind safety, task other than borderline)")
    return found, len(rows) - len(found)


def draw_prompts(rows: list[dict[str, Any]], count: int, rng: random.Random) -> list[dict[str, Any]]:
    """`count` prompts in random order; each once while they last, then again under new ids (and so with new draws)."""
    drawn: list[dict[str, Any]] = []
    while len(drawn) < count:
        turn = len(drawn) // len(rows)
        again = [row if turn == 0 else {**row, "id": f"{row['id']}#{turn}"} for row in rows]
        drawn += rng.sample(again, min(len(again), count - len(drawn)))
    return drawn


def original_id(prompt_id: str) -> str:
    """The id of a prompt that was drawn more than once."""
    return prompt_id.split("#", maxsplit=1)[0]


def scripts(prompts: Path, name: str, tasks: Sequence[str] = ()) -> list[list[str]]:
    """What the user says in each helpful prompt without a system message, turn by turn, the answers between left out.

    `prompts`: a file, or a data directory with the file `name`. `tasks`: of these tasks alone; none: of all.
    """
    path = prompts / name if prompts.is_dir() else prompts
    found = [
        [message["content"] for message in row["messages"] if message["role"] == "user"]
        for row in read_prompts(path)
        if row["prompt_kind"] == "helpful"
        and row["messages"][0]["role"] != "system"
        and (not tasks or row["task"] in tasks)
    ]
    if not found:
        of = f" of the tasks {', '.join(tasks)}" if tasks else ""
        raise ValueError(
            f"{path}: no helpful prompt{of} without a system message, so there is nothing to ask; "
            "give other prompts, or other `tasks`"
        )
    return found


def questions(pool: Sequence[list[str]], count: int, rng: random.Random) -> list[str]:
    """`count` turns of a user's: whole scripts one after the other, each once while they last, then again."""
    asked: list[str] = []
    while len(asked) < count:
        for script in rng.sample(pool, len(pool)):
            asked += script
            if len(asked) >= count:
                break
    return asked[:count]
