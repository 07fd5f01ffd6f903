"""Drawing prompts for sampling stages."""

from __future__ import annotations

import random
from typing import Any


def draw_prompts(rows: list[dict[str, Any]], count: int, rng: random.Random) -> list[dict[str, Any]]:
    """`count` prompts in random order; each once while they last, then again under new ids (and so with new draws)."""
    drawn: list[dict[str, Any]] = []
    while len(drawn) < count:
        turn = len(drawn) // len(rows)
        again = [row if turn == 0 else {**row, "id": f"{row['id']}#{turn}"} for row in rows]
        drawn += rng.sample(again, min(len(again), count - len(drawn)))
    return drawn
