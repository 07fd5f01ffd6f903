from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from ayni.evals.statistics import clustered_share, mean_interval, missing, share, win_share


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (1, 3), (37, 400), (399, 400)])
def test_share_is_wilsons_interval(k, n):
    figure = share([True] * k + [False] * (n - k))
    oracle = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert figure["value"] == k / n
    assert figure["low"] == pytest.approx(oracle.low, abs=1e-12)
    assert figure["high"] == pytest.approx(oracle.high, abs=1e-12)
    assert (figure["n"], figure["unit"]) == (n, "share")


def test_mean_interval_is_near_scipys_bootstrap_and_always_the_same():
    values = np.random.default_rng(1).exponential(size=150)
    figure = mean_interval(list(values), "tokens")
    oracle = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=2).confidence_interval
    width = oracle.high - oracle.low
    assert figure["value"] == pytest.approx(values.mean())
    assert abs(figure["low"] - oracle.low) < 0.08 * width
    assert abs(figure["high"] - oracle.high) < 0.08 * width
    assert mean_interval(list(values), "tokens") == figure


def test_repeated_answers_to_one_prompt_do_not_narrow_the_interval():
    values = list(np.random.default_rng(0).normal(size=40))
    once = mean_interval(values)
    copies = mean_interval(values * 10, clusters=list(range(40)) * 10)
    assert copies["n"] == 40
    assert copies["value"] == pytest.approx(once["value"])
    assert (copies["low"], copies["high"]) == (pytest.approx(once["low"]), pytest.approx(once["high"]))
    naive = mean_interval(values * 10)
    assert naive["high"] - naive["low"] < 0.5 * (once["high"] - once["low"])


def test_clusters_of_unequal_size_weigh_by_their_answers():
    assert mean_interval([1.0, 1.0, 1.0, 0.0], clusters=["a", "a", "a", "b"])["value"] == 0.75


def test_win_share_counts_ties_half():
    figure = win_share([1.0, 2.0, 0.0, 5.0], [0.0, 2.0, 1.0, 4.0])
    assert figure["value"] == (2 + 0.5) / 4
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert win_share([1.0] * 5, [1.0] * 5) == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 5, "unit": "share"}


def test_missing_and_mismatched():
    assert share([]) == mean_interval([], "share") == win_share([], []) == missing("share")
    with pytest.raises(ValueError, match="2 utilities against 1"):
        win_share([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="cluster keys"):
        mean_interval([1.0], clusters=["a", "b"])


def test_a_clustered_share_is_never_narrower_than_of_independent_rows() -> None:
    """One wording each: the bootstrap and Wilson's nearly agree. Ten equal wordings each: as wide as a tenth of the rows."""
    hits = [True, False, False, False] * 5
    alone = clustered_share(hits, range(20))
    assert alone["value"] == 0.25
    assert (alone["low"], alone["high"]) == (
        min(share(hits)["low"], mean_interval([*map(float, hits)])["low"]),
        max(share(hits)["high"], mean_interval([*map(float, hits)])["high"]),
    )
    ten = clustered_share([hit for hit in hits for _ in range(10)], [number for number in range(20) for _ in range(10)])
    assert (ten["value"], ten["n"]) == (0.25, 200)
    assert ten["high"] - ten["low"] > 2 * (share(hits * 10)["high"] - share(hits * 10)["low"])


def test_a_clustered_share_of_none_or_all_counts_clusters() -> None:
    none = clustered_share([False] * 30, [number % 3 for number in range(30)])
    assert (none["value"], none["low"], none["n"]) == (0.0, 0.0, 30)
    assert none["high"] == share([False] * 3)["high"]
    assert clustered_share([True] * 4, "aabb")["low"] == share([True] * 2)["low"]
    assert clustered_share([], [])["value"] is None
