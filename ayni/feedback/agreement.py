"""How far annotators agree (paper 4.4, A.7: Gwet's AC1 and AC2, because chance-corrected kappa fails on skewed labels)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

Ratings = Sequence[Sequence[Hashable | None]]  # one row per item, one column per rater, None: not rated


def observed_agreement(ratings: Ratings) -> float:
    """Mean over items of the share of rater pairs who gave the same label.

        p_a = 1/n' sum_i sum_k r_ik (r_ik - 1) / (r_i (r_i - 1)),

    r_ik the raters who put item i into category k, r_i those who rated it, n' the items with r_i >= 2.
    """
    shares = []
    for row in ratings:
        counts = Counter(label for label in row if label is not None)
        raters = counts.total()
        if raters >= 2:
            shares.append(sum(count * (count - 1) for count in counts.values()) / (raters * (raters - 1)))
    if not shares:
        raise ValueError("agreement needs at least one item rated by two raters")
    return sum(shares) / len(shares)


def gwet_ac1(ratings: Ratings) -> float:
    """Gwet's first agreement coefficient for any number of raters, categories and missing ratings.

        AC1 = (p_a - p_e) / (1 - p_e),   p_e = 1/(q - 1) sum_k pi_k (1 - pi_k),   pi_k = 1/n sum_i r_ik / r_i

    with q the number of categories seen and n the items with at least one rating (Gwet 2008, "Computing inter-rater
    reliability and its variance in the presence of high agreement"). By hand, since irrCAC counts NaN as a category.
    """
    agreement = observed_agreement(ratings)
    weight: Counter[Hashable] = Counter()
    items = 0
    for row in ratings:
        counts = Counter(label for label in row if label is not None)
        if counts:
            items += 1
            for label, count in counts.items():
                weight[label] += count / counts.total()  # type: ignore[assignment]
    if len(weight) < 2:
        return 1.0  # one category everywhere: nothing is left to disagree about
    chance = sum(w / items * (1 - w / items) for w in weight.values()) / (len(weight) - 1)
    return (agreement - chance) / (1 - chance)


def gwet_ac2(ratings: Ratings, order: Sequence[Hashable]) -> float:
    """Gwet's second coefficient, for grades: raters one step apart agree nearly, those at both ends not at all.

        AC2 = (p_a - p_e) / (1 - p_e),   p_a = 1/n' sum_i sum_k r_ik (r*_ik - 1) / (r_i (r_i - 1)),   r*_ik = sum_l w_kl r_il
        p_e = T_w / (q (q - 1)) sum_k pi_k (1 - pi_k),   T_w = sum_kl w_kl
        w_kl = 1 - C(|k - l| + 1, 2) / C(q, 2)   (ordinal weights), w_kk = 1

    `order`: all q grades from lowest to highest, those nobody gave included. With w the identity this is AC1. ValueError for
    fewer than two grades, a label that is none of them, or no item rated twice.
    """
    place = {label: k for k, label in enumerate(order)}
    q = len(order)
    if q < 2 or len(place) < q:
        raise ValueError(f"AC2 needs two or more different grades in order, got {list(order)}")
    r_NK = np.zeros((len(ratings), q))
    for row, labels in zip(r_NK, ratings):
        for label in labels:
            if label is None:
                continue
            if label not in place:
                raise ValueError(f"the label {label!r} is none of the grades {list(order)}")
            row[place[label]] += 1
    apart_KK = np.abs(np.subtract.outer(np.arange(q), np.arange(q)))
    w_KK = 1 - (apart_KK + 1) * apart_KK / (q * (q - 1))
    r_N = r_NK.sum(1)
    if not (r_N >= 2).any():
        raise ValueError("agreement needs at least one item rated by two raters")
    twice_NK, twice_N = r_NK[r_N >= 2], r_N[r_N >= 2]
    agreement = float(((twice_NK * (twice_NK @ w_KK - 1)).sum(1) / (twice_N * (twice_N - 1))).mean())
    pi_K = (r_NK[r_N > 0] / r_N[r_N > 0, None]).mean(0)
    chance = float(w_KK.sum() / (q * (q - 1)) * (pi_K * (1 - pi_K)).sum())
    return (agreement - chance) / (1 - chance)
