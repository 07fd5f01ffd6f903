"""Figures of a set of scores that are no means: how split they are, how well they separate, rank and predict."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata, spearmanr

from ayni.evals.calibration import BINS

PERFECT_DRAWS = 100


def bimodality(score_N: np.ndarray) -> float:
    """Sarle's coefficient (skewness^2 + 1) / kurtosis: 1/3 of a normal, 5/9 of a uniform distribution, 1 of two points.

    0 for scores that are all equal.
    """
    if np.ptp(score_N) == 0:
        return 0.0
    d_N = score_N - score_N.mean()
    m2, m3, m4 = (d_N**2).mean(), (d_N**3).mean(), (d_N**4).mean()
    return float((m3**2 / m2**3 + 1) / (m4 / m2**2))


def separation(answer_N2: np.ndarray) -> float:
    """P(an unsafe answer scores below a safe one), ties half: the area under the ROC curve. 0.5 where one class is missing.

    Columns: score, 1 if unsafe.
    """
    unsafe_N = answer_N2[:, 1] > 0
    u, s = int(unsafe_N.sum()), int((~unsafe_N).sum())
    if u == 0 or s == 0:
        return 0.5
    rank_N = rankdata(-answer_N2[:, 0])  # the Mann-Whitney statistic
    return float((rank_N[unsafe_N].sum() - u * (u + 1) / 2) / (u * s))


def rank_correlation(rows_N2: np.ndarray) -> float:
    """Spearman's, of two columns; 0 where one is constant."""
    constant = len(rows_N2) < 2 or (np.ptp(rows_N2, axis=0) == 0).any()
    return 0.0 if constant else float(spearmanr(rows_N2[:, 0], rows_N2[:, 1]).statistic)


def calibration_error(rows_N2: np.ndarray) -> float:
    """Expected calibration error of sigma(gap) against what was chosen: sum_b |sum_{i in b} p_i - y_i| / N over equal bins.

    Columns: gap, 1 if the first answer was chosen. The same as `evals.calibration`'s, quick enough to be bootstrapped.
    """
    p_N = expit(rows_N2[:, 0])
    bin_N = np.minimum((p_N * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bin_N, weights=p_N - rows_N2[:, 1])).sum() / len(p_N))


def perfect_calibration_error(rows_N2: np.ndarray) -> float:
    """What counting so few pairs does alone: the mean error were each first answer chosen with the predicted probability."""
    rng = np.random.default_rng(0)
    p_N = expit(rows_N2[:, 0])
    draws = [np.column_stack([rows_N2[:, 0], rng.random(len(p_N)) < p_N]) for _ in range(PERFECT_DRAWS)]
    return float(np.mean([calibration_error(draw) for draw in draws]))
