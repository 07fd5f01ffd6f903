"""Best of K: figures 7 and 8 against loops."""

from __future__ import annotations

import statistics

import pytest
import torch

from ayni.scoring.best_of import best_ended, by_k


def test_figure_7_maximum_grows_with_k_and_median_is_the_median() -> None:
    reward_NK = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 4.0, 8.0]])
    assert by_k(reward_NK) == [
        {"k": 1, "max": 0.5, "median": 0.5},
        {"k": 2, "max": 1.5, "median": 0.5},
        {"k": 4, "max": 5.5, "median": 0.5},
    ]


@pytest.mark.parametrize("k_max", [3, 7, 20, 100])
def test_figure_7_equals_a_loop_and_ends_at_k(k_max: int) -> None:
    reward_NK = torch.randn(5, k_max, generator=torch.Generator().manual_seed(k_max))
    points = by_k(reward_NK)
    assert [point["k"] for point in points] == sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 100) if k < k_max} | {k_max})
    for point in points:
        first = [row[: point["k"]] for row in reward_NK.tolist()]
        assert point["max"] == pytest.approx(statistics.mean(max(row) for row in first))
        assert point["median"] == pytest.approx(statistics.mean(statistics.median_low(row) for row in first))


def test_an_answer_that_was_cut_counts_as_its_prompts_worst() -> None:
    reward_NK = torch.tensor([[1.0, 9.0, 3.0], [5.0, 6.0, 7.0], [2.0, 4.0, 3.0]])
    ended_NK = torch.tensor([[True, False, True], [False, False, False], [False, True, True]])
    assert best_ended(reward_NK, ended_NK).tolist() == [3.0, 5.0, 4.0]
