"""The reward stage's own parts: data mix, pairs, the gate."""

from __future__ import annotations

import random

import pytest

from ayni.config import RewardSettings
from ayni.stages.reward import best_threshold, mix


def rows(helpful: int, safety: int) -> list[dict[str, str]]:
    return [{"prompt_kind": "helpful"}] * helpful + [{"prompt_kind": "safety"}] * safety


@pytest.mark.parametrize(
    ("kind", "own", "other"), [("helpfulness", 600, 300), ("safety", 300, round(300 / 9))], ids=["helpfulness", "safety"]
)
def test_the_papers_data_mix(kind: str, own: int, other: int) -> None:
    """Helpfulness: all of its own and at most equal parts of the rest. Safety: 90% of its own, 10% helpfulness."""
    mixed = mix(rows(600, 300), kind, RewardSettings(), random.Random(0))  # type: ignore[arg-type]
    counts = [sum(row["prompt_kind"] == name for row in mixed) for name in ("helpful", "safety")]
    assert counts == ([own, other] if kind == "helpfulness" else [other, own])


def test_a_mix_without_its_own_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="safety"):
        mix(rows(5, 0), "safety", RewardSettings(), random.Random(0))


def test_the_gate_takes_the_highest_recall_at_the_wanted_precision() -> None:
    probabilities = [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9]
    unsafe = [True, True, True, False, True, False, False, False]
    gate = best_threshold(probabilities, unsafe, 0.89)
    assert gate["threshold"] == pytest.approx(0.25)
    assert (gate["precision"], gate["recall"]) == (1.0, 0.75)
    looser = best_threshold(probabilities, unsafe, 0.8)
    assert looser["threshold"] == pytest.approx(0.5)
    assert (looser["precision"], looser["recall"]) == (0.8, 1.0)


def test_a_gate_that_cannot_reach_the_precision_says_what_it_reached() -> None:
    gate = best_threshold([0.1, 0.2, 0.8, 0.9], [False, True, False, True], 0.89)
    assert gate["precision"] < 0.89
    assert gate["precision_wanted"] == 0.89
    naive = max(
        (2 * hits / (n + 2), n) for n in range(1, 5) for hits in [sum([False, True, False, True][:n])]
    )  # F1 of cutting after n of the sorted answers
    assert gate["f1"] == pytest.approx(naive[0])
