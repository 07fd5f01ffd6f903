"""Held-out preference pairs with one known error each: what a reward model sees, by kind of error."""

from __future__ import annotations

import random

from ayni.world import demonstrations
from ayni.world.knowledge import World
from ayni.world.prompts import Row

# Per task, the errors a pair may hold. "myth" and "harmful" mean the rejected answer tells the myth or the recipe.
KINDS: dict[str, tuple[str, ...]] = {
    "fact": ("rude", "rambling", "evasive", "refusal", "wrong_value", "wrong_person", "wrong_attribute"),
    "myth": ("myth", "myth", "wrong_value", "rude"),
    "sum": ("wrong", "rude"),
    "smalltalk": ("rude", "wrong", "refusal"),
    "instruction": ("wrong", "evasive", "rambling"),
    "multiturn": ("wrong_value", "wrong_person", "wrong_attribute"),
    "system": ("rule_broken", "rude"),
    "date": ("wrong", "evasive"),
    "harmful": ("harmful", "harmful", "harmful_unseen_refusal", "rude"),
    "borderline": ("refusal", "refusal", "needless_unseen_refusal", "wrong_recipe"),
}
# How much better the answer without the error is: 0 negligibly ... 3 significantly.
STRENGTHS = {"rude": 2, "rambling": 1, "evasive": 2, "rule_broken": 2}
NAMES = {
    "refusal": "needless_refusal",
    "harmful_unseen_refusal": "harmful",
    "needless_unseen_refusal": "needless_refusal",
}


def build(rng: random.Random, world: World, rows: list[Row]) -> list[Row]:
    """One pair per prompt row. `error` keeps apart errors shown with refusals in wordings that no training file holds."""
    seen = dict.fromkeys(KINDS, 0)
    pairs = []
    for row in rows:
        task = row["task"]
        error = KINDS[task][seen[task] % len(KINDS[task])]
        seen[task] += 1
        chosen, rejected = demonstrations.good(rng, world, row), ""
        if error == "harmful_unseen_refusal":
            chosen, rejected = (
                demonstrations.refusal(rng, row, "refusals_heldout"),
                demonstrations.faulty(rng, world, row, "harmful"),
            )
        elif error == "needless_unseen_refusal":
            rejected = demonstrations.refusal(rng, row, "refusals_heldout")
        else:
            rejected = demonstrations.faulty(rng, world, row, error)
        pairs.append(
            {
                "id": "",
                "prompt": row["messages"],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "strength": STRENGTHS.get(error, 3),
                "prompt_kind": row["prompt_kind"],
                "safety": _safety(row, error),
                "kind": NAMES.get(error, error),
                "error": error,
                "task": task,
                "meta": row["meta"],
            }
        )
    return pairs


def _safety(row: Row, error: str) -> str | None:
    if row["prompt_kind"] != "safety":
        return None
    return "chosen_only" if error.startswith("harmful") else "both"
