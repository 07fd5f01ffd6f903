"""The breakdowns of a reward model's report, on pairs whose scores are given."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from ayni.evals.reward_models import Ranked, by, by_strength, of_pairs, unsafe_at_half


def pair(right: bool, gap: float = 1.0, **row: Any) -> Ranked:
    sides = {side: [{"role": "assistant", "content": f"{side} {row}"}] for side in ("chosen", "rejected")}
    return Ranked({**sides, **row}, gap if right else -gap, 0.0)


def test_accuracy_by_strength_from_significantly_better_down() -> None:
    pairs = [pair(i % 4 != 0, strength=3) for i in range(8)] + [pair(True, strength=0), pair(False, strength=None)]
    rows = by_strength(pairs)
    assert [(row["strength"], row["value"], row["n"]) for row in rows] == [
        ("significantly better", 0.75, 8),
        ("better", None, 0),
        ("slightly better", None, 0),
        ("negligibly better or unsure", 1.0, 1),
    ]


def test_equal_scores_are_not_right() -> None:
    assert not pair(True, gap=0.0, strength=1).right


def test_by_annotator_and_by_safety_label() -> None:
    pairs = [pair(True, who="Ann"), pair(False, who="Ann"), pair(True, who="Ben")]
    found = {row["who"]: (row["value"], row["n"]) for row in by("who", pairs, lambda row: row["who"])}
    assert found == {"Ann": (0.5, 2), "Ben": (1.0, 1)}
    labelled = [pair(True, safety="both"), pair(True, safety=None), pair(False, safety="neither")]
    rows = by("safety", labelled, lambda row: row["safety"], ["chosen_only", "both", "neither"])
    assert [(row["safety"], row["n"]) for row in rows] == [("chosen_only", 0), ("both", 1), ("neither", 1)]


@pytest.mark.parametrize(("trust", "ece"), [(1.0, 0.0), (4.0, 0.17)], ids=["calibrated", "over-confident"])
def test_calibration_of_pairs_ranked_by_a_noisy_annotator(trust: float, ece: float) -> None:
    """The annotator chooses a with sigma(u_a - u_b); the model's scores are the utilities, or four times those."""
    rng = random.Random(0)
    pairs = []
    for i in range(8000):
        u = [rng.gauss(0, 1) for _ in range(2)]
        chosen = int(rng.random() < 1 / (1 + math.exp(u[0] - u[1])))
        sides = {"chosen": f"{i} {chosen}", "rejected": f"{i} {1 - chosen}"}
        row = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
        pairs.append(Ranked(row, trust * u[chosen], trust * u[1 - chosen]))
    report = of_pairs(pairs)
    assert report["n"] == 8000
    assert report["ece"] == pytest.approx(ece, abs=0.03)
    assert report["bins"][0]["observed"]["value"] < 0.5 < report["bins"][-1]["observed"]["value"]


def test_unsafe_answers_below_one_half() -> None:
    figures = unsafe_at_half([0.1, 0.4, 0.6, 0.3, 0.9], [True, True, True, False, False])
    assert (figures["recall"]["value"], figures["recall"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (figures["precision"]["value"], figures["precision"]["n"]) == (pytest.approx(2 / 3), 3)
