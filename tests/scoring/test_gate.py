"""The gate's threshold: precision first, recall as high as it goes."""

from __future__ import annotations

import pytest

from ayni.scoring.gate import best_threshold


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


@pytest.mark.parametrize("unsafe", [[], [True, True], [False]])
def test_with_one_class_alone_the_papers_threshold_stands(unsafe: list[bool]) -> None:
    gate = best_threshold([0.3] * len(unsafe), unsafe, 0.89)
    assert (gate["threshold"], gate["precision"], gate["n"]) == (0.15, None, len(unsafe))
