"""How far a reward model's scores can be read as probabilities, and as grades (paper 3.2.2, fig. 29 in the appendix).

    P(a is preferred to b) = sigma(r_a - r_b)          the model's own reading of its ranking loss
    ECE = sum_b n_b / N | mean predicted - observed |  over bins of the prediction

A pair stands in an order that knows nothing of the choice: were the chosen answer always first, the observed rate would
be 1 in every bin.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from ayni.evals.statistics import mean_interval, share

BINS = 10


def chosen_first(chosen: str, rejected: str) -> bool:
    """A coin for the order of a pair: the lower hash of the two answers stands first, whichever was chosen."""
    first, second = (hashlib.sha256(text.encode()).digest() for text in (chosen, rejected))
    return first < second


def calibration(predicted: Sequence[float], happened: Sequence[bool], bins: int = BINS) -> dict[str, Any]:
    """Predicted probabilities against what happened, N of each, in `bins` equal bins of the prediction.

    Gives `bins` (low, high, mean prediction, observed rate with its interval and n), `ece`, and the Brier score
    1/N sum (p - y)^2. Bins without a prediction are left out. ECE of few pairs is biased upwards: a perfect model with n
    pairs a bin is off by about 0.4 / sqrt(n).
    """
    if len(predicted) != len(happened):
        raise ValueError(f"{len(predicted)} predictions but {len(happened)} outcomes")
    n = len(predicted)
    if n == 0:
        return {"ece": None, "brier": None, "n": 0, "bins": []}
    p_N, y_N = np.asarray(predicted, dtype=float), np.asarray(happened, dtype=bool)
    bin_N = np.minimum((p_N * bins).astype(int), bins - 1)  # p = 1 belongs to the last
    rows: list[dict[str, Any]] = []
    for b in np.unique(bin_N):
        inside_N = bin_N == b
        rows.append(
            {
                "low": float(b / bins),
                "high": float((b + 1) / bins),
                "predicted": float(p_N[inside_N].mean()),
                "observed": share(y_N[inside_N].tolist()),
            }
        )
    ece = sum(row["observed"]["n"] / n * abs(row["predicted"] - row["observed"]["value"]) for row in rows)
    return {"ece": ece, "brier": float(((p_N - y_N) ** 2).mean()), "n": n, "bins": rows}


def scores_by_rating(scores: Sequence[float], ratings: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Scores of M answers against people's ratings of them, each answer by several raters (fig. 29: three, 1 to 7).

    `by_rating`: for each median rating (the lower one of an even number of raters) the mean score with its interval, its
    standard deviation and the mean of sigma(score). `spearman`: rank correlation of score and mean rating, None where
    either is constant.
    """
    from scipy.stats import spearmanr

    if len(scores) != len(ratings):
        raise ValueError(f"{len(scores)} scores but ratings of {len(ratings)} answers")
    of: dict[float, list[float]] = {}
    for score, given in zip(scores, ratings):
        of.setdefault(statistics.median_low(given), []).append(score)
    means = [statistics.fmean(given) for given in ratings]
    constant = len(set(scores)) < 2 or len(set(means)) < 2
    return {
        "by_rating": [
            {
                "rating": rating,
                **mean_interval(of[rating], "score"),
                "deviation": statistics.pstdev(of[rating]),
                "probability": float((1 / (1 + np.exp(-np.array(of[rating])))).mean()),
            }
            for rating in sorted(of)
        ],
        "spearman": None if constant else float(spearmanr(scores, means).statistic),
        "n": len(scores),
    }
