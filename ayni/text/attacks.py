"""Adversarial prompts from a bank (paper 4.2.1 and 4.3), and which of them stay out of training.

    row   id, messages (ending in user), prompt_kind "safety", task "harmful" or "borderline",
          meta: category, topic, style, vector, turns, objective, heldout_objective, heldout_style, heldout_category

Training and evaluation share no objective: which are held out is a function of the seed and the objective alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ayni.text.attack_bank import TARGETS, WHOLE, Bank, Objective, Target, slots_of, turns_of
from ayni.text.native import Message

Row = dict[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """What never trains: names of objectives, styles and categories."""

    objectives: frozenset[str]
    styles: frozenset[str]
    categories: frozenset[str]

    def trains(self, row: Row) -> bool:
        meta = row["meta"]
        return not (meta["objective"] in self.objectives or meta["style"] in self.styles or meta["category"] in self.categories)  # fmt: skip


def hold_out(bank: Bank, seed: int, *, objectives: float, styles: int, categories: int) -> HeldOut:
    """A share of the objectives, by the hash of the group; styles and categories as the bank says, else drawn."""
    vectors = sorted(name for name, style in bank.styles.items() if style.vector)
    own = [name for name, style in bank.styles.items() if style.held_out]
    rng = random.Random(f"held-out styles {seed}")
    held_styles = own or rng.sample(vectors, min(styles, len(vectors)))
    known = sorted({objective.category for objective in bank.objectives})
    rng = random.Random(f"held-out categories {seed}")
    held_categories = bank.held_out_categories or rng.sample(known, min(categories, max(0, len(known) - 1)))
    held = [
        o.id
        for o in bank.objectives
        if o.category in held_categories
        or zlib.crc32(f"{seed} held-out objective {o.group or o.id}".encode()) % 10_000 < 10_000 * objectives
    ]
    return HeldOut(frozenset(held), frozenset(held_styles), frozenset(held_categories))


def request(bank: Bank, objective: Objective, target: Target, rng: random.Random) -> str:
    """The objective as a request, {q}; empty if no wording has the slots for it."""
    slots = objective.slots(target)
    wordings = [WHOLE] if "q" in slots else [w for w in bank.requests if slots_of(w) <= slots.keys()]
    return rng.choice(wordings).format(**slots) if wordings and slots else ""


def attack(
    bank: Bank, held: HeldOut, objective: Objective, name: str, target: Target, rng: random.Random
) -> Row | None:
    """One row, not yet numbered; None if the style needs what the objective does not have."""
    found = _attack(bank, held, objective, name, target, rng)
    return found and found[0]


def _attack(
    bank: Bank, held: HeldOut, objective: Objective, name: str, target: Target, rng: random.Random
) -> tuple[Row, str] | None:
    """The row, and what it says before the style's transformation: two spellings of one text are no two attacks."""
    style = bank.styles[name]
    asked = request(bank, objective, target, rng)
    slots = {**objective.slots(target), **({"q": asked} if asked else {})}
    if not objective.slots(target):
        return None
    fitting = [t for t in style.templates if all(slots_of(turn) <= slots.keys() for turn in turns_of(t))]
    if not fitting:
        return None
    template = turns_of(rng.choice(fitting))
    plain = repr((objective.before, [turn.format(**slots) for turn in template], name))
    if asked:
        slots["q"] = TRANSFORMS[style.transform](asked, rng)
    said = [turn.format(**slots) for turn in template]
    turns: list[Message] = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]
    messages = [*objective.before, *turns]
    row = {
        "id": "",
        "messages": messages,
        "prompt_kind": "safety",
        "task": target,
        "meta": {
            **objective.meta,
            **(objective.meta_borderline if target == "borderline" else {}),
            "category": objective.category,
            "topic": objective.topic,
            "style": name,
            "vector": style.vector,
            "turns": sum(message["role"] == "user" for message in messages),
            "objective": objective.id,
            "heldout_objective": objective.id in held.objectives,
            "heldout_style": name in held.styles,
            "heldout_category": objective.category in held.categories,
        },
    }
    return row, plain


def generate(
    bank: Bank,
    held: HeldOut,
    *,
    count: int,
    seed: int,
    split: Literal["all", "train", "eval"] = "all",
    borderline: float = 0.25,
) -> list[Row]:
    """`count` different rows, categories and styles in turn; fewer where the bank has no more.

    `train` has no held-out objective, style or category; `eval` has held-out objectives alone, in every style.
    `borderline`: the chance of the look-alike, where an objective has both sides.
    """
    rng = random.Random(f"attacks {seed} {split}")
    cells: dict[tuple[str, str], list[Objective]] = {}
    for objective in bank.objectives:
        for name in bank.styles:
            if split == "train" and (name in held.styles or objective.id in held.objectives):
                continue
            if split == "eval" and objective.id not in held.objectives:
                continue
            cells.setdefault((objective.category, name), []).append(objective)
    order = sorted(cells)
    waiting: dict[tuple[str, str], list[Objective]] = {}
    rows: list[Row] = []
    seen: set[str] = set()
    while order and len(rows) < count:
        for cell in list(order):
            if len(rows) == count:
                break
            row = _next(bank, held, cells[cell], waiting.setdefault(cell, []), cell[1], borderline, rng, seen)
            if row is None:
                order.remove(cell)
            else:
                rows.append({**row, "id": f"attack-{split}-{len(rows)}"})
    return rows


def _next(
    bank: Bank,
    held: HeldOut,
    pool: Sequence[Objective],
    waiting: list[Objective],
    style: str,
    borderline: float,
    rng: random.Random,
    seen: set[str],
) -> Row | None:
    """A row that was not drawn yet: every objective of the pool once, then again in other words; None if all are known."""
    for _ in range(2 * len(pool)):
        if not waiting:
            waiting += rng.sample(list(pool), len(pool))
        objective = waiting.pop()
        sides = [target for target in TARGETS if objective.slots(target)]
        target = sides[0] if len(sides) == 1 or rng.random() >= borderline else sides[1]
        found = _attack(bank, held, objective, style, target, rng)
        if found is not None and found[1] not in seen:
            seen.add(found[1])
            return found[0]
    return None


def misspell(text: str, rng: random.Random) -> str:
    """A third of the words of four letters or more, one at least: two letters swapped, one dropped, or one doubled."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if sum(map(str.isalpha, word)) >= 4]
    for i in rng.sample(long, max(1, len(long) // 3)) if long else []:
        word = words[i]
        at = rng.choice([k for k in range(1, len(word) - 1) if word[k].isalpha() and word[k + 1].isalpha()] or [1])
        changed = (word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:])  # fmt: skip
        words[i] = rng.choice([other for other in changed if other != word])
    return " ".join(words)


def digits(text: str, _rng: random.Random) -> str:
    """Letters as the digits that look like them."""
    return text.translate(str.maketrans("aeiotAEIOT", "4310743107"))


TRANSFORMS: Mapping[str, Callable[[str, random.Random], str]] = {
    "none": lambda text, _: text,
    "misspell": misspell,
    "digits": digits,
}
