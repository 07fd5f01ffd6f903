"""Length and words alone, on pairs where it is known what they can see."""

from __future__ import annotations

import random

import pytest

from ayni.evals.baselines import baselines, table


def pairs(n: int, longer_wins: float, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        short, long = "a b", "a b " * rng.randint(2, 5)
        made.append((long, short) if rng.random() < longer_wins else (short, long))
    return made


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_learned_length_turns_round_where_shorter_wins_and_the_plain_one_does_not() -> None:
    for longer_wins in (0.9, 0.2):
        test = pairs(400, longer_wins, 1)
        points = baselines(pairs(400, longer_wins, 0), test)
        longer = mean([float(len(chosen) > len(rejected)) for chosen, rejected in test])
        assert mean(points["longer"]) == longer == pytest.approx(longer_wins, abs=0.06)
        assert mean(points["length"]) == pytest.approx(max(longer, 1 - longer))
        assert set(points["words"]) == {0.5}, "the same words on both sides"


def test_words_are_learned_where_they_tell() -> None:
    rng = random.Random(2)
    made = [(f"{rng.choice(['good', 'fine'])} day", f"{rng.choice(['bad', 'poor'])} day") for _ in range(200)]
    points = baselines(made[:100], made[100:])
    assert mean(points["words"]) == 1.0


def test_equal_lengths_count_half_and_intervals_come_with_n() -> None:
    points = baselines([], [("abc", "xyz"), ("abcd", "x"), ("a", "xyz")])
    assert points == {"longer": [0.5, 1.0, 0.0]}
    figure = table(points, range(3))["longer"]
    assert (figure["value"], figure["n"]) == (0.5, 3)
    assert table(points, [])["longer"]["value"] is None


def test_answers_without_a_word() -> None:
    assert "words" not in baselines([("!", "?!")], [("!!!", "?")])
