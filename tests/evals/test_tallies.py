"""Counts and figures of judged pairs, by naive loops and closed forms."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_expit

from ayni.evals.tallies import agreement, comparisons, majority, places, strengths, tallies, tally

Row = dict[str, Any]


def row(number: int, a: str, b: str, grade: int | None, said: dict[str, list[int | None]] | None = None, **more: Any) -> Row:  # fmt: skip
    given = {rater: {"grades": grades, "grade": _grade(grades)} for rater, grades in (said or {}).items()}
    return {"id": f"p{number}", "prompt_kind": "helpful", "turns": 1, "a": a, "b": b, "grade": grade, "longer": 0, "said": given, **more}  # fmt: skip


def _grade(grades: list[int | None]) -> int | None:
    return None if None in grades else grades[0]


def test_the_majority_of_three() -> None:
    for said in itertools.product((-2, 0, 1, None), repeat=3):
        known = [s for s in said if s is not None]
        wins, losses = sum(s > 0 for s in known), sum(s < 0 for s in known)
        wanted = None if not known else 1 if wins > len(known) / 2 else -1 if losses > len(known) / 2 else 0
        assert majority(said) == wanted
    assert majority([]) is None
    assert majority([1, 1, -1]) == 1
    assert majority([1, 0, -1]) == 0
    assert majority([1, None, None]) == 1
    assert majority([1, -1]) == 0


def test_wins_ties_and_losses_are_counted_and_the_verdictless_count_nowhere() -> None:
    rows = [row(i, "x", "y", g) for i, g in enumerate([1] * 5 + [0] * 3 + [-1] * 2 + [None] * 4)]
    found = tally(rows, "x", "y")
    assert [found[name]["value"] for name in ("win", "tie", "loss")] == pytest.approx([0.5, 0.3, 0.2])
    assert found["win_rate"]["value"] == pytest.approx(0.65)
    assert found["win_rate"]["n"] == 10
    assert found["no_verdict"] == 4
    for name in ("win", "tie", "loss", "win_rate"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    nothing = tally(rows[-4:], "x", "y")
    assert nothing["win"]["value"] is nothing["win_rate"]["value"] is nothing["at_equal_length"]["value"] is None


def test_the_interval_draws_prompts() -> None:
    """The bootstrap by a naive loop over prompts, with another generator."""
    rng = random.Random(0)
    rows = [row(i, "x", "y", rng.choice([1, 1, 0, -1])) for i in range(60)]
    found = tally(rows, "x", "y")["win_rate"]
    points = [(r["grade"] + 1) / 2 for r in rows]
    means = sorted(sum(rng.choices(points, k=60)) / 60 for _ in range(4000))
    assert found["low"] == pytest.approx(means[100], abs=0.02)
    assert found["high"] == pytest.approx(means[3900], abs=0.02)


def test_groups_are_those_that_split_the_prompts() -> None:
    rows = [row(i, "x", "y", 1 if i < 4 else -1, prompt_kind="helpful" if i < 4 else "safety") for i in range(6)]
    rows += [row(i, "x", "z", 0) for i in range(6)] + [row(i, "y", "z", 1, turns=1 + i % 2) for i in range(6)]
    found = {(each["a"], each["b"]): each for each in tallies(rows, ["x", "y", "z"])}
    assert list(found) == [("x", "y"), ("x", "z"), ("y", "z")]
    assert {name: part["win"]["value"] for name, part in found["x", "y"]["groups"].items()} == {"helpful": 1.0, "safety": 0.0}  # fmt: skip
    assert found["x", "z"]["groups"] == {}
    assert {name: part["win"]["n"] for name, part in found["y", "z"]["groups"].items()} == {"single-turn": 3, "multi-turn": 3}  # fmt: skip


def test_a_judge_of_length_alone_is_even_at_equal_length_and_lost_where_lengths_never_cross() -> None:
    rng = np.random.default_rng(1)
    ahead = rng.normal(50, 70, 400).round()
    rows = [row(i, "x", "y", int(np.sign(d)), longer=int(d)) for i, d in enumerate(ahead)]
    found = tally(rows, "x", "y")
    assert found["win_rate"]["low"] > 0.65
    assert found["at_equal_length"]["low"] < 0.5 < found["at_equal_length"]["high"]
    assert found["at_equal_length"]["value"] == pytest.approx(0.5, abs=0.1)
    assert found["longer"]["value"] == pytest.approx((ahead > 0).sum() / (ahead != 0).sum())
    always = [row(i, "x", "y", 1, longer=5 + i) for i in range(20)]
    assert tally(always, "x", "y")["at_equal_length"]["value"] is None


def test_strengths_are_the_maximum_of_the_likelihood_and_of_two_models_a_closed_form() -> None:
    """scipy's search on the likelihood with ties as half a win each, and the prior's virtual ties."""
    rng = random.Random(2)
    names = ["w", "x", "y", "z"]
    rows = [row(i, a, b, rng.choice([1, 0, -1, 1 if a < b else -1])) for i in range(40) for a, b in itertools.combinations(names, 2)]  # fmt: skip
    won = np.zeros((4, 4))
    for r in rows:
        i, j, points = names.index(r["a"]), names.index(r["b"]), (r["grade"] + 1) / 2
        won[i, j] += points
        won[j, i] += 1 - points
    won += 0.5 * (1 - np.eye(4))

    def loss(s: np.ndarray) -> float:
        return float(-(won * log_expit(s[:, None] - s[None, :])).sum() + s.sum() ** 2)

    oracle = minimize(loss, np.zeros(4), method="BFGS", tol=1e-10).x
    found = strengths(rows)
    for i, name in enumerate(names):
        assert found[name]["value"] == pytest.approx(oracle[i] - oracle.mean(), abs=1e-5)
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    two = strengths([row(i, "x", "y", g) for i, g in enumerate([1] * 12 + [0] * 4 + [-1] * 3)])
    assert two["x"]["value"] == pytest.approx(np.log((12 + 2 + 0.5) / (3 + 2 + 0.5)) / 2, abs=1e-6)
    assert two["x"]["value"] == pytest.approx(-two["y"]["value"])
    assert strengths([row(0, "x", "y", None)]) == {}
    assert comparisons([row(0, "x", "y", None)]) == []


def test_what_a_place_does() -> None:
    said: list[list[int | None]] = [[1, 1], [2, -1], [3, -3], [-1, 1], [0, 0], [1, 0], [None, 1], [None, None]]
    rows = [row(i, "x", "y", 0, {"e": grades, "r": [1]}) for i, grades in enumerate(said)]
    found = places(rows, ["e", "r"])
    assert (found["e"]["rated"], found["e"]["asked"], found["e"]["unparsable"]) == (8, 16, 3)
    assert [found["e"][k]["value"] for k in ("steady", "first", "second")] == pytest.approx([2 / 6, 2 / 6, 1 / 6])
    assert found["e"]["lean"]["value"] == pytest.approx(1 / 6)
    assert found["e"]["steady"]["n"] == 6
    assert not found["r"]["in_both_orders"]
    assert found["r"]["steady"]["value"] is None


def test_agreement_of_raters_by_hand() -> None:
    """AC1 of two raters on three labels: p_a = 6/8; shares of win 8/16, tie 2/16, loss 6/16."""
    a, b = [1, 1, 1, 1, -1, -1, 0, 1], [2, 1, 1, -1, -1, -3, 0, -1]
    rows = [row(i, "x", "y", 0, {"r": [p], "s": [q]}) for i, (p, q) in enumerate(zip(a, b))]
    found = agreement(rows, ["r", "s"])
    assert found is not None
    shares = [5 / 16 + 3 / 16, 2 / 16, 6 / 16]
    chance = sum(p * (1 - p) for p in shares) / 2
    assert found["all"]["ac1"] == pytest.approx((6 / 8 - chance) / (1 - chance))
    assert list(found) == ["all"]
    assert found["all"]["pairs"] == 8
    assert 0 < found["all"]["ac2"] < 1
    assert agreement(rows, ["r"]) is None
    assert agreement([row(0, "x", "y", 0, {"r": [1]}), row(1, "x", "y", 0, {"s": [1]})], ["r", "s"]) is None
