"""The annotation curriculum: harder prompts from round to round, and a control arm with the same prompts."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from statistics import mean

import pytest

from ayni.config import PreferenceSettings
from ayni.text.curriculum import in_band, prompts_of_round, ranked, turns
from ayni.text.prompts import original_id


def prompt(number: int, kind: str = "helpful", said: int = 1, text: str = "?", **meta: float) -> dict:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i in range(2 * said - 1)]
    return {"id": f"p{number}", "messages": messages, "prompt_kind": kind, "task": "chat", "meta": meta}


ROWS = [prompt(i, "safety" if i % 5 == 0 else "helpful", difficulty=(i * 37 % 100) / 100) for i in range(100)]


def rounds(curriculum: str, n: int = 5, pairs: int = 30, band: float = 0.4) -> list[PreferenceSettings]:
    return [PreferenceSettings(pairs=pairs, curriculum=curriculum, band=band)] * n  # type: ignore[arg-type]


def test_difficulty_where_given_else_turns_then_length() -> None:
    graded = [prompt(0, difficulty=0.9), prompt(1, said=4, difficulty=0.1)]
    assert [row["id"] for row in ranked(graded, random.Random(0))] == ["p1", "p0"]
    plain = [prompt(0, said=3), prompt(1, text="a long question"), prompt(2), prompt(3, said=3, difficulty=0.0)]
    order = [row["id"] for row in ranked(plain, random.Random(0))]
    assert order[:2] == ["p2", "p1"], "one row without a grade: nobody is graded"
    assert set(order[2:]) == {"p0", "p3"}
    assert [turns(row) for row in plain] == [3, 1, 1, 3]


def test_bands_move_from_the_easy_end_to_the_hard_end_within_each_kind() -> None:
    for kind in ("helpful", "safety"):
        by_ease = sorted((r for r in ROWS if r["prompt_kind"] == kind), key=lambda r: r["meta"]["difficulty"])
        for number in range(1, 6):
            low = 0.6 * (number - 1) / 4
            wanted = by_ease[round(low * len(by_ease)) : round((low + 0.4) * len(by_ease))]
            got = [row for row in in_band(ROWS, number, 5, 0.4, random.Random(0)) if row["prompt_kind"] == kind]
            assert {row["id"] for row in got} == {row["id"] for row in wanted}, (kind, number)
    assert len(in_band(ROWS, 1, 1, 0.4, random.Random(0))) == 100, "one round draws from everything"
    assert len(in_band([prompt(0)], 5, 5, 0.1, random.Random(0))) == 1


def test_rising_gets_harder_every_round_and_keeps_the_kinds_shares() -> None:
    drawn = [prompts_of_round(ROWS, rounds("rising"), number, seed=1) for number in range(1, 6)]
    hard = [mean(row["meta"]["difficulty"] for row in rows) for rows in drawn]
    assert all(a < b for a, b in pairwise(hard))
    assert all(len(rows) == 30 and len({row["id"] for row in rows}) == 30 for rows in drawn)
    assert all(2 <= sum(row["prompt_kind"] == "safety" for row in rows) <= 8 for rows in drawn)
    again = [prompts_of_round(ROWS, rounds("rising"), number, seed=1) for number in range(1, 6)]
    assert drawn == again
    assert drawn[0] != prompts_of_round(ROWS, rounds("rising"), 1, seed=2)


@pytest.mark.parametrize("pairs", [30, 70])  # 70: more than a band holds, so that prompts come again
def test_shuffled_deals_the_same_prompts_to_the_rounds(pairs: int) -> None:
    def all_of(curriculum: str) -> list[list[dict]]:
        return [prompts_of_round(ROWS, rounds(curriculum, pairs=pairs), number, seed=1) for number in range(1, 6)]

    rising, shuffled = all_of("rising"), all_of("shuffled")
    assert Counter(original_id(row["id"]) for rows in rising for row in rows) == Counter(
        original_id(row["id"]) for rows in shuffled for row in rows
    )
    for rows in shuffled:
        assert len(rows) == pairs
        assert len({row["id"] for row in rows}) == pairs
    hard = [mean(row["meta"]["difficulty"] for row in rows) for rows in shuffled]
    assert max(hard) - min(hard) < 0.25, "no round is much harder than another"


def test_rounds_of_different_sizes_are_dealt_whole() -> None:
    sizes = [10, 25, 40]
    settings = [PreferenceSettings(pairs=size, curriculum="shuffled", band=0.5) for size in sizes]
    assert [len(prompts_of_round(ROWS, settings, number, seed=0)) for number in (1, 2, 3)] == sizes
