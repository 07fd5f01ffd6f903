from __future__ import annotations

import itertools
import random

import pytest

from ayni.feedback.agreement import gwet_ac1, gwet_ac2, observed_agreement


def test_ac1_by_hand():
    # Two raters, 10 items: 8 agree on "y", 1 on "n", 1 split. p_a = 0.9; pi_y = 0.85, pi_n = 0.15;
    # p_e = 0.85*0.15 + 0.15*0.85 = 0.255; AC1 = (0.9 - 0.255) / 0.745.
    ratings = [("y", "y")] * 8 + [("n", "n")] + [("y", "n")]
    assert observed_agreement(ratings) == pytest.approx(0.9)
    assert gwet_ac1(ratings) == pytest.approx(0.645 / 0.745)


def test_published_value_of_irrcac_raw_4raters():
    """Gwet's worked example ("Handbook of Inter-Rater Reliability", table 2.10): 12 units, 4 raters, gaps."""
    columns = (
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    )
    assert gwet_ac1(list(zip(*columns))) == pytest.approx(0.77544, abs=1e-5)
    assert gwet_ac2(list(zip(*columns)), [1, 2, 3, 4, 5]) == pytest.approx(0.89894, abs=1e-5)


def test_ac2_of_two_grades_is_ac1_and_near_misses_count_less_than_far_ones():
    rng = random.Random(5)
    ratings = [[rng.choice([0, 1, None]) for _ in range(3)] for _ in range(40)]
    assert gwet_ac2(ratings, [0, 1]) == pytest.approx(gwet_ac1(ratings))
    near, far = ([(1, 2)] * 5 + [(3, 3)] * 5, [(1, 4)] * 5 + [(3, 3)] * 5)
    assert gwet_ac2(near, [1, 2, 3, 4]) > gwet_ac2(far, [1, 2, 3, 4])


def test_ac2_refuses_labels_without_a_place():
    with pytest.raises(ValueError, match="label 'x' is none of the grades"):
        gwet_ac2([("x", 1)], [1, 2])
    with pytest.raises(ValueError, match="two or more different grades"):
        gwet_ac2([(1, 1)], [1])
    with pytest.raises(ValueError, match="rated by two raters"):
        gwet_ac2([(1, None)], [1, 2])


def test_observed_agreement_equals_counting_pairs():
    rng = random.Random(3)
    ratings = [[rng.choice([0, 1, 2, None]) for _ in range(4)] for _ in range(50)]
    shares = []
    for row in ratings:
        pairs = list(itertools.combinations([label for label in row if label is not None], 2))
        if pairs:
            shares.append(sum(a == b for a, b in pairs) / len(pairs))
    assert observed_agreement(ratings) == pytest.approx(sum(shares) / len(shares))


def test_a_skewed_label_does_not_sink_ac1_as_it_sinks_kappa():
    ratings = [("ok", "ok")] * 118 + [("ok", "bad"), ("bad", "ok")] * 2 + [("bad", "bad")]
    kappa_chance = (120.5 / 123) ** 2 + (2.5 / 123) ** 2
    kappa = (observed_agreement(ratings) - kappa_chance) / (1 - kappa_chance)
    assert kappa < 0.5
    assert gwet_ac1(ratings) > 0.95


def test_needs_two_raters_somewhere():
    with pytest.raises(ValueError, match="two raters"):
        gwet_ac1([("a", None), (None, "b")])
