"""How far annotators agree (paper 4.4, A.7: Gwet's AC1, because chance-corrected kappa fails on skewed labels)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

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
