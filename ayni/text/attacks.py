"""Adversarial prompts from a bank (paper 4.2.1 and 4.3), and which of them stay out of training.

    row   id, messages (ending in user), prompt_kind "safety", task "harmful" or "borderline",
          meta: category, topic, style, vector, turns, objective, heldout_objective, heldout_style, heldout_category

Training and evaluation share no objective: which are held out is a function of the seed and the objective alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ayni.text.attack_bank import TARGETS, Bank, Objective, Target, slots_of, turns_of
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


def requests_of(bank: Bank, objective: Objective, target: Target) -> list[str]:
    """The objective as a request, {q}, in every wording that it has the slots for."""
    slots = objective.slots(target)
    if "q" in slots:
        return [slots["q"]]
    return [wording.format(**slots) for wording in bank.requests if slots and slots_of(wording) <= slots.keys()]


def wordings(bank: Bank, objective: Objective, name: str, target: Target) -> list[tuple[str, list[str]]]:
    """(request, turns of a template) for every way to say it in a style; request empty where the template has no {q}."""
    slots, found = objective.slots(target), []
    for turns in map(turns_of, bank.styles[name].templates) if slots else ():
        needed = set().union(*map(slots_of, turns))
        if needed <= slots.keys() | {"q"}:
            asked = requests_of(bank, objective, target) if "q" in needed else [""]
            found += [(text, turns) for text in asked]
    return found


def attack(
    bank: Bank, held: HeldOut, objective: Objective, name: str, target: Target, rng: random.Random
) -> Row | None:
    """One row, not yet numbered; None if the style needs what the objective does not have."""
    ways = wordings(bank, objective, name, target)
    return worded(bank, held, objective, name, target, rng.choice(ways), rng) if ways else None


def worded(
    bank: Bank,
    held: HeldOut,
    objective: Objective,
    name: str,
    target: Target,
    way: tuple[str, list[str]],
    rng: random.Random,
) -> Row:
    """The row of one of `wordings`; `rng` is for the style's transformation alone."""
    asked, turns = way
    style = bank.styles[name]
    slots = {**objective.slots(target), "q": TRANSFORMS[style.transform](asked, rng)}
    said: list[Message] = [
        {"role": "assistant" if i % 2 else "user", "content": turn.format(**slots)} for i, turn in enumerate(turns)
    ]
    messages = [*objective.before, *said]
    return {
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


def generate(
    bank: Bank,
    held: HeldOut,
    *,
    count: int,
    seed: int,
    split: Literal["all", "train", "eval"] = "all",
    borderline: float = 0.25,
) -> list[Row]:
    """`count` different rows, categories and styles in turn; fewer where the bank has no other wording.

    `train` has no held-out objective, style or category; `eval` has held-out objectives alone, in every style.
    `borderline`: the chance of the look-alike, where an objective has both sides. Two misspellings of one wording are one.
    """
    rng = random.Random(f"attacks {seed} {split}")
    cells: dict[tuple[str, str], Cell] = {}
    for objective in bank.objectives:
        for name in bank.styles:
            trains = name not in held.styles and objective.id not in held.objectives
            if split == "all" or (trains if split == "train" else objective.id in held.objectives):
                cells.setdefault((objective.category, name), Cell(bank, held, name)).objectives.append(objective)
    order = sorted(cells)
    rng.shuffle(order)  # so that few prompts are of many categories
    open_cells = [cells[key] for key in order]
    rows: list[Row] = []
    while open_cells and len(rows) < count:
        for cell in list(open_cells):
            row = cell.next(borderline, rng) if len(rows) < count else None
            if row is not None:
                rows.append({**row, "id": f"attack-{split}-{len(rows)}"})
            elif len(rows) < count:
                open_cells.remove(cell)
    return rows


@dataclass
class Cell:
    """The attacks of one category in one style: every objective once, then again in other words, until none is left."""

    bank: Bank
    held: HeldOut
    style: str
    objectives: list[Objective] = field(default_factory=list)  # that have a wording left
    waiting: list[Objective] = field(default_factory=list)
    left: dict[tuple[str, Target], list[tuple[str, list[str]]]] = field(default_factory=dict)

    def next(self, borderline: float, rng: random.Random) -> Row | None:
        """None when every wording was given out."""
        while self.objectives:
            self.waiting = self.waiting or rng.sample(self.objectives, len(self.objectives))
            objective = self.waiting.pop()
            sides = [target for target in TARGETS if self._left(objective, target, rng)]
            if sides:
                target = sides[-1] if rng.random() < borderline else sides[0]
                way = self._left(objective, target, rng).pop()
                return worded(self.bank, self.held, objective, self.style, target, way, rng)
            self.objectives.remove(objective)
        return None

    def _left(self, objective: Objective, target: Target, rng: random.Random) -> list[tuple[str, list[str]]]:
        key = (objective.id, target)
        if key not in self.left:
            ways = wordings(self.bank, objective, self.style, target)
            self.left[key] = rng.sample(ways, len(ways))
        return self.left[key]


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
    return text.translate(str.maketrans("aeiostAEIOST", "431057431057"))


TRANSFORMS: Mapping[str, Callable[[str, random.Random], str]] = {
    "none": lambda text, _: text,
    "misspell": misspell,
    "digits": digits,
}
