"""Calibration against a naive loop, and on forecasters whose calibration is known."""

from __future__ import annotations

import math
import random

import pytest

from ayni.evals.calibration import calibration, chosen_first, scores_by_rating


def forecasts(n: int, sharpness: float, seed: int = 0) -> tuple[list[float], list[bool]]:
    """(predicted, happened): the truth is sigma(x), the forecast sigma(sharpness x)."""
    rng = random.Random(seed)
    logits = [rng.gauss(0, 1.5) for _ in range(n)]
    predicted = [1 / (1 + math.exp(-sharpness * x)) for x in logits]
    return predicted, [rng.random() < 1 / (1 + math.exp(-x)) for x in logits]


def test_against_a_naive_loop() -> None:
    predicted, happened = forecasts(300, 2.0)
    predicted[0], predicted[1] = 0.0, 1.0
    report = calibration(predicted, happened, bins=7)
    ece, bins = 0.0, []
    for b in range(7):
        inside = [(p, y) for p, y in zip(predicted, happened) if b / 7 <= p < (b + 1) / 7 or (b == 6 and p == 1.0)]
        if inside:
            mean = sum(p for p, _ in inside) / len(inside)
            rate = sum(y for _, y in inside) / len(inside)
            ece += len(inside) / 300 * abs(mean - rate)
            bins.append((b / 7, mean, rate, len(inside)))
    found = [(row["low"], row["predicted"], row["observed"]["value"], row["observed"]["n"]) for row in report["bins"]]
    assert len(found) == len(bins)
    for ours, naive in zip(found, bins):
        assert ours == pytest.approx(naive)
    assert report["ece"] == pytest.approx(ece)
    assert report["brier"] == pytest.approx(sum((p - y) ** 2 for p, y in zip(predicted, happened)) / 300)
    assert report["n"] == 300


def test_a_perfect_forecaster_and_an_over_confident_one() -> None:
    perfect = calibration(*forecasts(40_000, 1.0))
    assert perfect["ece"] < 0.01
    assert all(
        row["observed"]["low"] - 0.01 < row["predicted"] < row["observed"]["high"] + 0.01 for row in perfect["bins"]
    )
    bold = calibration(*forecasts(40_000, 3.0))
    assert bold["ece"] > 0.1
    assert bold["bins"][0]["observed"]["value"] > bold["bins"][0]["predicted"] + 0.1, "less sure things than it thinks"
    assert bold["bins"][-1]["observed"]["value"] < bold["bins"][-1]["predicted"] - 0.1
    assert perfect["brier"] < bold["brier"]


def test_ten_bins_that_reach_below_one_half() -> None:
    report = calibration(*forecasts(5000, 1.0))
    assert len(report["bins"]) == 10
    assert report["bins"][0]["observed"]["value"] < 0.2
    assert report["bins"][-1]["observed"]["value"] > 0.8


def test_the_order_of_a_pair_knows_nothing_of_the_choice() -> None:
    texts = [(f"answer {i}", f"other {i}") for i in range(2000)]
    first = [chosen_first(*pair) for pair in texts]
    assert 0.45 < sum(first) / len(first) < 0.55
    assert [chosen_first(rejected, chosen) for chosen, rejected in texts] == [not came for came in first]


def test_nothing_and_too_little() -> None:
    assert calibration([], []) == {"ece": None, "brier": None, "n": 0, "bins": []}
    with pytest.raises(ValueError, match="2 predictions but 1 outcomes"):
        calibration([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="1 scores but ratings of 0 answers"):
        scores_by_rating([0.1], [])


def test_scores_by_the_median_rating() -> None:
    scores = [0.0, 1.0, 2.0, 4.0]
    report = scores_by_rating(scores, [[1, 2, 7], [2, 2, 2], [6, 7, 5], [7, 6, 6, 7]])
    rows = {row["rating"]: row for row in report["by_rating"]}
    assert {rating: (row["value"], row["n"]) for rating, row in rows.items()} == {2: (0.5, 2), 6: (3.0, 2)}
    assert rows[6]["deviation"] == pytest.approx(1.0)
    assert rows[2]["probability"] == pytest.approx((0.5 + 1 / (1 + math.exp(-1))) / 2)
    # mean ratings 3.33, 2, 6, 6.5: one swap of neighbours among four, 1 - 6 * 2 / (4 * 15)
    assert report["spearman"] == pytest.approx(0.8)
    assert scores_by_rating([1.0, 1.0], [[1], [7]])["spearman"] is None
