from __future__ import annotations

import itertools
import random
from functools import cache

import pytest

from ayni.scoring.overlap import char_f, contains_gold, exact_match, normalise, rouge_l


def test_normalisation_is_squads():
    assert normalise("The  Cat's, a (big) AN-swer!") == "cats big answer"


def test_exact_and_containment_take_any_alias():
    golds = ["Saint Lima", "the Lima"]
    assert exact_match("Lima!", golds)
    assert not exact_match("It is Lima", golds)
    assert contains_gold("It is Lima, of course.", golds)
    assert not contains_gold("It is Limassol.", golds)
    assert not contains_gold("anything", ["", "the"])


def test_rouge_l_against_recursive_oracle():
    rng = random.Random(0)
    for _ in range(60):
        a = [rng.choice("bcdef") for _ in range(rng.randint(1, 9))]
        b = [rng.choice("bcdef") for _ in range(rng.randint(1, 9))]

        @cache
        def longest(i: int, j: int, a=tuple(a), b=tuple(b)) -> int:
            if i == len(a) or j == len(b):
                return 0
            if a[i] == b[j]:
                return 1 + longest(i + 1, j + 1)
            return max(longest(i + 1, j), longest(i, j + 1))

        length = longest(0, 0)
        expected = 0.0 if length == 0 else 2 / (len(a) / length + len(b) / length)
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected)


def test_char_f_against_naive_count():
    a, b, order, beta = "the cat sat", "a cat sat down", 3, 2.0
    x, y = a.replace(" ", ""), b.replace(" ", "")
    precisions, recalls = [], []
    for n in range(1, order + 1):
        grams_x = [x[i : i + n] for i in range(len(x) - n + 1)]
        rest = [y[i : i + n] for i in range(len(y) - n + 1)]
        total_y, common = len(rest), 0
        for gram in grams_x:
            if gram in rest:
                rest.remove(gram)
                common += 1
        precisions.append(common / len(grams_x))
        recalls.append(common / total_y)
    p, r = sum(precisions) / order, sum(recalls) / order
    assert char_f(a, b, order, beta) == pytest.approx((1 + beta**2) * p * r / (beta**2 * p + r))


def test_overlaps_are_one_for_equal_texts_and_zero_for_disjoint_ones():
    for measure, text in itertools.product((rouge_l, char_f), ("Lima", "a much longer sentence about Lima")):
        assert measure(text, text) == 1.0
        assert measure(text, "xyz qqq") == 0.0
