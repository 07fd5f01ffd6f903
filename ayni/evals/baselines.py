"""What an accuracy of a reward model stands beside: answers ranked by their length, or by their words, alone.

    longer   the longer answer wins; nothing is learned, equal lengths count half
    length   logistic regression on the difference of lengths and of their logarithms
    words    logistic regression on the difference of which words occur

Both regressions see the training pairs in both orders and have no intercept, so that neither side is favoured.
Lengths are in characters of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ayni.evals.statistics import mean_interval, missing

Texts = Sequence[tuple[str, str]]  # (chosen, rejected) answers


def baselines(train: Texts, test: Texts) -> dict[str, list[float]]:
    """Points of each test pair, 1 right, 0.5 undecided, 0 wrong; without training pairs the learned ones are left out."""
    points = {"longer": [_points(len(chosen) - len(rejected)) for chosen, rejected in test]}
    if train and test:
        points["length"] = _learned(*(np.array([_lengths(*pair) for pair in pairs]) for pairs in (train, test)))
        if words := _words(train, test):
            points["words"] = _learned(*words)
    return points


def table(points: dict[str, list[float]], rows: Sequence[int]) -> dict[str, Any]:
    """Accuracy of each baseline on some of the test pairs, with its interval."""
    return {
        name: mean_interval([values[i] for i in rows], "share") if rows else missing()
        for name, values in points.items()
    }


def _points(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _lengths(chosen: str, rejected: str) -> tuple[float, float]:
    return (len(chosen) - len(rejected)) / 1000, math.log1p(len(chosen)) - math.log1p(len(rejected))


def _words(train: Texts, test: Texts) -> tuple[Any, Any] | None:
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(binary=True, token_pattern=r"\w+", dtype=np.float64)
    try:
        counter.fit([text for pair in train for text in pair])
    except ValueError:  # not one word in all the answers
        return None
    return tuple(
        counter.transform([chosen for chosen, _ in pairs]) - counter.transform([rejected for _, rejected in pairs])
        for pairs in (train, test)
    )


def _learned(train_NF: Any, test_NF: Any) -> list[float]:
    """Points of a logistic regression on chosen minus rejected, fitted with each pair in both orders."""
    from scipy.sparse import issparse, vstack
    from sklearn.linear_model import LogisticRegression

    both = vstack([train_NF, -train_NF]) if issparse(train_NF) else np.vstack([train_NF, -train_NF])
    labels = np.repeat([1, 0], train_NF.shape[0])
    model = LogisticRegression(C=0.3, fit_intercept=False, max_iter=500).fit(both, labels)
    return [_points(value) for value in model.decision_function(test_NF)]
