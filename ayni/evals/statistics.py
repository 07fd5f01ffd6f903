"""Shares, means and win shares, each with its 95% interval: the form in which `results.json` holds every figure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

Z_95 = 1.959963984540054  # normal quantile at 0.975
DRAWS = 2000
SEED = 0  # the same values always give the same interval


def missing(unit: str = "share") -> dict[str, Any]:
    """A figure that no row of this evaluation set can give."""
    return {"value": None, "low": None, "high": None, "n": 0, "unit": unit}


def share(successes: Sequence[bool]) -> dict[str, Any]:
    """Share of successes with Wilson's interval, which stays inside [0, 1] and is sound at 0 and n.

    centre = (p + z^2/2n) / (1 + z^2/n),   half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)
    """
    n = len(successes)
    if n == 0:
        return missing("share")
    p = sum(map(bool, successes)) / n
    scale = 1 + Z_95**2 / n
    centre = (p + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n)) / scale
    # At p = 0 and p = 1 the bound equals p but for rounding.
    low, high = min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
    return {"value": p, "low": low, "high": high, "n": n, "unit": "share"}


def mean_interval(
    values: Sequence[float], unit: str = "mean", clusters: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Mean with the percentile bootstrap over clusters (default: every value its own), seeded.

    Values of one cluster (answers to the same prompt) are drawn together, since they are not independent. `n` counts
    clusters, the number that carries the evidence.
    """
    if not values:
        return missing(unit)
    keys = list(range(len(values))) if clusters is None else list(clusters)
    if len(keys) != len(values):
        raise ValueError(f"{len(values)} values but {len(keys)} cluster keys")
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    cluster_N = np.array([index[key] for key in keys])
    sum_C = np.bincount(cluster_N, weights=np.asarray(values, dtype=float))
    size_C = np.bincount(cluster_N)
    draws_DC = np.random.default_rng(SEED).integers(0, len(index), (DRAWS, len(index)))
    means_D = sum_C[draws_DC].sum(1) / size_C[draws_DC].sum(1)
    low, high = np.quantile(means_D, [0.025, 0.975])
    value = float(sum_C.sum() / size_C.sum())
    return {"value": value, "low": float(low), "high": float(high), "n": len(index), "unit": unit}


def clustered_share(successes: Sequence[bool], clusters: Sequence[Hashable]) -> dict[str, Any]:
    """Share of successes among rows that come in clusters (wordings of one request), never narrower than of independent rows.

    The interval is the wider, end by end, of Wilson's over rows and the bootstrap over clusters. Where all rows agree the
    bootstrap knows nothing, and the interval is Wilson's over as many rows as there are clusters. `n` counts rows.
    """
    rows = share(successes)
    if not successes or rows["value"] in (0.0, 1.0):
        return {**share([bool(rows["value"])] * len(set(clusters))), "n": len(successes)}
    drawn = mean_interval([float(hit) for hit in successes], "share", clusters)
    return {**rows, "low": min(rows["low"], drawn["low"]), "high": max(rows["high"], drawn["high"])}


def win_share(
    a_utilities: Sequence[float], b_utilities: Sequence[float], prompts: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Share of comparisons that a wins over b, ties counting half: (wins + ties/2) / n; bootstrap over prompts.

    a_utilities[i] and b_utilities[i] belong to answers to the same prompt, prompts[i] (default: each its own).
    """
    if len(a_utilities) != len(b_utilities):
        raise ValueError(f"win share needs pairs: {len(a_utilities)} utilities against {len(b_utilities)}")
    points = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(a_utilities, b_utilities)]
    return mean_interval(points, "share", prompts)
