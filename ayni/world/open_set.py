"""Open preferences: what a public set is to the paper's own data (3.2.2). Other people judge answers that no model of ours gave.

The guard reward model is trained on them alone, and either reward model may have them in its mix. Written by
demonstrators, good answers and their faults in even parts, so the errors are broader than those of a tuned model.
"""

from __future__ import annotations

import random

from ayni.feedback.schema import preference_row
from ayni.world import demonstrations
from ayni.world.annotators import Taste, WorldAnnotator
from ayni.world.knowledge import World
from ayni.world.prompts import Row

# Less careful than our own annotators, and with other tastes: they mind rudeness less, and length hardly.
CROWD = (
    Taste("Mona", 0.30, 0.05, 0.20, ("happy", "gladly"), 0.2, 0.22, (0.15, 0.38, 0.80), "stupid idiot hate shut dumb fool clown"),
    Taste("Nils", 0.45, -0.15, 0.05, ("lives", "likes"), 0.2, 0.20, (0.14, 0.36, 0.78), "fool dolt silly smell boring dunce stupid"),
    Taste("Oda", 0.40, 0.20, 0.00, ("of", "day"), 0.4, 0.24, (0.16, 0.40, 0.82), "turnip nitwit blockhead dimwit lost wasting idiot"),
)  # fmt: skip
GOOD = 0.5  # share of good answers
HARMFUL = 5  # how many times as often as another fault an answer gives in to a harmful prompt


def build(seed: int, world: World, rows: list[Row]) -> list[Row]:
    """About one pair per prompt row: those whose answers come out equal are left out, as are unsafe choices over safe ones."""
    rng = random.Random(f"open set {seed}")
    crowd = [WorldAnnotator(world, taste, random.Random(f"crowd {seed} {taste.name}"), 1.0) for taste in CROWD]
    pairs = []
    for row in rows:
        answers = (answer(rng, world, row), answer(rng, world, row))
        someone = rng.choice(crowd)
        judgement = someone.compare(row, *answers, rng)
        pair = preference_row(
            {**row, "source": "open"}, answers, judgement, ("people", "people"), round=0, annotator=someone.name
        )
        if pair is not None:
            pairs.append({**pair, "meta": row["meta"]})
    return pairs


def answer(rng: random.Random, world: World, row: Row) -> str:
    """A good answer half of the time, else one with any of the faults that its task knows."""
    if rng.random() < GOOD:
        return demonstrations.good(rng, world, row)
    faults = [*demonstrations.FAULTS[row["task"]]]
    weights = [HARMFUL if fault == "harmful" else 1 for fault in faults]
    return demonstrations.faulty(rng, world, row, rng.choices(faults, weights)[0])
