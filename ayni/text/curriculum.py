"""The annotation curriculum (paper 3.2.1): prompts get harder and dialogues longer from round to round.

Prompts are ranked by difficulty within their kind (helpful, safety), and round r of R draws from a band of the ranking:

    [ (1 - b) (r - 1) / (R - 1),  the same + b ]        b: `band`, a share of the ranking

so that both kinds keep their shares in every round. The paper says that it was so, not how; difficulty, bands and their
width are our choice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ayni.config import PreferenceSettings
from ayni.text.prompts import draw_prompts, original_id

Row = dict[str, Any]


def ranked(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    """Easiest first, by `meta["difficulty"]` (a number, higher is harder); where any row has none, by the number of the
    user's turns, then by length. Equals stand in random order."""
    graded = all(isinstance(row["meta"].get("difficulty"), int | float) for row in rows)
    shuffled = rng.sample(rows, len(rows))
    return sorted(shuffled, key=lambda row: (row["meta"]["difficulty"],) if graded else (turns(row), _characters(row)))


def turns(row: Row) -> int:
    """How often the user speaks."""
    return sum(message["role"] == "user" for message in row["messages"])


def _characters(row: Row) -> int:
    return sum(len(message["content"]) for message in row["messages"])


def in_band(rows: Sequence[Row], number: int, of: int, band: float, rng: random.Random) -> list[Row]:
    """The rows that round `number` of `of` rounds draws from; all of them if there is one round only."""
    low = (1 - band) * (number - 1) / (of - 1) if of > 1 else 0.0
    high = low + band if of > 1 else 1.0
    kept: list[Row] = []
    for kind in sorted({row["prompt_kind"] for row in rows}):
        ranking = ranked([row for row in rows if row["prompt_kind"] == kind], rng)
        first = min(round(low * len(ranking)), len(ranking) - 1)
        kept += ranking[first : max(first + 1, round(high * len(ranking)))]
    return kept


def prompts_of_round(rows: Sequence[Row], rounds: Sequence[PreferenceSettings], number: int, seed: int) -> list[Row]:
    """The prompts of round `number` (from 1), `rounds[number - 1].pairs` of them.

    rising: drawn from the round's band. shuffled: what `rising` would give all rounds together, dealt at random, so that
    both arms of a comparison see the same prompts. The draw depends on `seed` and `rounds` alone.
    """
    settings = rounds[number - 1]
    if settings.curriculum == "rising":
        return _rising(rows, rounds, number, seed)
    pool = [row for each in range(1, len(rounds) + 1) for row in _rising(rows, rounds, each, seed)]
    random.Random(f"shuffled curriculum {seed}").shuffle(pool)
    before = sum(each.pairs for each in rounds[: number - 1])
    return _numbered(pool[before : before + settings.pairs])


def _rising(rows: Sequence[Row], rounds: Sequence[PreferenceSettings], number: int, seed: int) -> list[Row]:
    settings, rng = rounds[number - 1], random.Random(f"curriculum {seed} {number}")
    return draw_prompts(in_band(rows, number, len(rounds), settings.band, rng), settings.pairs, rng)


def _numbered(rows: list[Row]) -> list[Row]:
    """Rows that stand here more than once get ids of their own, as `draw_prompts` gives them."""
    met = Counter[str]()
    out = []
    for row in rows:
        first = original_id(row["id"])
        out.append({**row, "id": f"{first}#{met[first]}" if met[first] else first})
        met[first] += 1
    return out
