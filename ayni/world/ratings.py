"""Grades of single answers by several people, to set a reward model's scores against (paper, fig. 29: 7 points, three raters)."""

from __future__ import annotations

import random

from ayni.world import annotators, open_set
from ayni.world.knowledge import World
from ayni.world.prompts import Row

RATERS = 3
ANSWERS = 2  # to each prompt


def build(seed: int, world: World, rows: list[Row]) -> list[Row]:
    """Answers to prompts that nothing trains on, each graded by three of the annotators."""
    rng = random.Random(f"ratings {seed}")
    people = annotators.people(world, seed)
    rated = []
    for row in rows:
        for _ in range(ANSWERS):
            text = open_set.answer(rng, world, row)
            grades = {rater.name: rater.rate(row, text, rng) for rater in rng.sample(people, RATERS)}
            rated.append({**row, "id": "", "answer": text, "ratings": grades})
    return rated
