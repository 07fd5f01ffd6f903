from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from ayni.evals.pairwise import (
    RIDGE,
    Comparison,
    at_equal_length,
    bradley_terry,
    length_controlled,
    log_strengths,
    turned,
    win_rate,
)


def test_win_rate_counts_ties_half_and_draws_prompts() -> None:
    rows = [Comparison("p", "x", "y", 1.0), Comparison("p", "y", "x", 1.0), Comparison("q", "x", "y", 0.5)]
    found = win_rate(rows, "x", "y")
    assert found["value"] == pytest.approx(0.5)
    assert found["n"] == 2  # prompts
    assert win_rate([Comparison(str(i), "x", "y", 1.0) for i in range(9)], "y", "x")["value"] == 0.0
    assert turned([Comparison("p", "y", "x", 0.25, longer=3.0)], "x", "y") == [Comparison("p", "x", "y", 0.75, -3.0)]
    with pytest.raises(ValueError, match="x and z were never compared"):
        win_rate(rows, "x", "z")


def test_the_mm_iteration_finds_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    won_MM = rng.integers(1, 12, (5, 5)).astype(float)
    np.fill_diagonal(won_MM, 0)

    def loss(strength_M: np.ndarray) -> float:
        ahead_MM = strength_M[:, None] - strength_M[None, :]
        return float(-(won_MM * log_expit(ahead_MM)).sum() + (strength_M.sum()) ** 2)

    oracle_M = minimize(loss, np.zeros(5), method="BFGS", tol=1e-10).x
    assert log_strengths(won_MM) == pytest.approx(oracle_M - oracle_M.mean(), abs=1e-5)


def test_strengths_come_back_from_simulated_comparisons() -> None:
    rng = np.random.default_rng(1)
    truth = {"weak": -1.0, "middle": 0.0, "strong": 1.0}
    rows = []
    for prompt in range(500):
        for a, b in (("weak", "middle"), ("strong", "middle"), ("weak", "strong")):
            rows.append(Comparison(str(prompt), a, b, float(rng.random() < expit(truth[a] - truth[b]))))
    found = bradley_terry(rows)
    assert list(found) == ["strong", "middle", "weak"]
    for name, figure in found.items():
        assert figure["low"] < truth[name] < figure["high"]
        assert figure["high"] - figure["low"] < 0.6
        assert figure["n"] == 1000


def test_a_model_that_never_lost_needs_the_prior() -> None:
    rows = [Comparison(str(i), "x", "y", 1.0) for i in range(20)]
    with pytest.raises(ValueError, match="use a prior above 0"):
        bradley_terry(rows, prior=0)
    found = bradley_terry(rows)
    assert found["x"]["value"] == pytest.approx(np.log(20.5 / 0.5) / 2, abs=1e-6)  # p_x / p_y = 20.5 / 0.5
    with pytest.raises(ValueError, match="compared with itself"):
        bradley_terry([Comparison("p", "x", "x", 1.0), Comparison("p", "x", "y", 1.0)])


def test_newton_finds_what_a_search_without_derivatives_finds() -> None:
    """Also where the sides are separable, where only the ridge keeps the optimum finite."""
    rng = np.random.default_rng(4)
    for number in range(15):
        n = int(rng.integers(3, 60))
        x_N = np.tanh(rng.normal(rng.normal(0, 1), 1, n))
        y_N = [(x_N > 0) * 1.0, np.ones(n), rng.choice([0, 0.5, 1], n)][number % 3]
        weight_N = np.bincount(rng.integers(0, n, n), minlength=n) * 1.0

        def loss(t: np.ndarray, x_N=x_N, y_N=y_N, weight_N=weight_N) -> float:
            z_N = t[0] + t[1] * x_N
            return float(-(weight_N * (y_N * log_expit(z_N) + (1 - y_N) * log_expit(-z_N))).sum() + RIDGE / 2 * t @ t)

        oracle = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9999, "maxfev": 9999})  # fmt: skip
        assert at_equal_length(x_N, y_N, weight_N[None])[0] == pytest.approx(expit(oracle.x[0]), abs=1e-6)


def test_a_judge_who_counts_letters_alone_gives_half_at_equal_length() -> None:
    rng = np.random.default_rng(3)
    rows = [Comparison(str(i), "x", "y", float(d > 0), d) for i, d in enumerate(rng.normal(60, 80, 800))]
    assert win_rate(rows, "x", "y")["low"] > 0.7
    controlled = length_controlled(rows, "x", "y")
    assert controlled["low"] < 0.5 < controlled["high"]
    assert controlled["value"] == pytest.approx(0.5, abs=0.05)


def test_length_control_takes_away_what_length_bought() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for prompt in range(800):  # the longer answer is preferred, x writes longer, and is no better
        longer = rng.normal(60, 80)
        rows.append(Comparison(str(prompt), "x", "y", float(rng.random() < expit(2 * np.tanh(longer / 80))), longer))
    plain, controlled = win_rate(rows, "x", "y"), length_controlled(rows, "x", "y")
    assert plain["low"] > 0.6
    assert controlled["low"] < 0.5 < controlled["high"]
    assert length_controlled(rows, "y", "x")["value"] == pytest.approx(1 - controlled["value"], abs=1e-3)
    even = [Comparison(str(i), "x", "y", float(i % 4 > 0), 10.0) for i in range(40)]
    assert length_controlled(even, "x", "y")["value"] == pytest.approx(0.75, abs=1e-2)  # equal lengths: the plain share
