"""Comparing arms: paired by seed and by prompt, with intervals that draw seeds and, inside each, prompts.

    difference   d = 1/S sum_s 1/N_s sum_i (a_si - b_si)
    interval     percentiles of d over D draws: S seeds with replacement, and of each its N_s prompts with replacement

A seed decides the world, the model's weights and every draw, so seeds are what a claim must survive; prompts inside a
seed are not independent of each other. With few seeds such an interval is rough: the seeds' own values stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ayni.studies.study import Effect, Outcome

DRAWS = 2000
ALL = "all"  # the unit of a figure that is one number per model


@dataclass(frozen=True)
class Outcomes:
    """Every arm's outcome with every seed: by[arm][seed]."""

    by: Mapping[str, Mapping[int, Outcome]]

    @property
    def seeds(self) -> list[int]:
        return sorted(next(iter(self.by.values())))

    def values(self, metric: str, arm: str) -> list[dict[str, float]]:
        """{unit: value} of each seed, in the order of `seeds`; empty where a seed has no such unit."""
        return [self.by[arm][seed].values.get(metric, {}) for seed in self.seeds]

    def means(self, metric: str, arm: str) -> list[float]:
        """The mean over units, one per seed that has any."""
        return [float(np.mean(list(values.values()))) for values in self.values(metric, arm) if values]


def level(outcomes: Outcomes, metric: str, arm: str, name: str = "", unit: str = "share", above: float = 0.0) -> Effect:
    """An arm's mean with its interval."""
    samples = [np.array(list(values.values()), dtype=float) for values in outcomes.values(metric, arm)]
    return _effect(samples, name or f"{metric}, {arm}", unit, above)


def difference(
    outcomes: Outcomes,
    metric: str,
    arm: str,
    against: str,
    name: str = "",
    unit: str = "share",
    above: float = 0.0,
    metric_against: str | None = None,
) -> Effect:
    """`arm` minus `against` over the units that both have, paired.

    `metric_against`: what the second arm is measured by, if it is another metric (or the same arm with another metric).
    """
    second = outcomes.values(metric_against or metric, against)
    samples = [
        np.array([a[key] - b[key] for key in a if key in b], dtype=float)
        for a, b in zip(outcomes.values(metric, arm), second)
    ]
    return _effect(samples, name or f"{metric}: {arm} minus {against}", unit, above)


def of_seeds(values: Sequence[float], name: str, unit: str, above: float = 0.0) -> Effect:
    """A quantity that exists once per seed (a slope, a correlation): its mean, and a bootstrap over seeds alone."""
    return _effect([np.array([value], dtype=float) for value in values], name, unit, above)


def negative(effect: Effect, name: str, above: float = 0.0) -> Effect:
    """The same effect with its sign turned, for claims that something falls."""
    if effect.value is None or effect.low is None or effect.high is None:
        return Effect(name, None, None, None, 0, effect.unit, above)
    return Effect(name, -effect.value, -effect.high, -effect.low, effect.n, effect.unit, above)


def statistic(
    samples: Sequence[Mapping[str, float]] | Sequence[np.ndarray],
    of: Callable[[np.ndarray], float],
    name: str,
    unit: str,
    above: float = 0.0,
) -> Effect:
    """Any statistic of a seed's units (a median, an expected calibration error), averaged over seeds; `samples`: per seed.

    An array's first axis is the unit of evidence.
    """
    arrays = [np.array(list(s.values()), dtype=float) if isinstance(s, Mapping) else s for s in samples]
    arrays = [array for array in arrays if len(array)]
    if not arrays:
        return Effect(name, None, None, None, 0, unit, above)
    rng = np.random.default_rng(0)
    means_DS = np.array(
        [[of(a[rng.integers(0, len(a), len(a))]) for a in arrays] for _ in range(DRAWS // 10)], dtype=float
    )
    picked_DS = rng.integers(0, len(arrays), (DRAWS, len(arrays)))
    draws_D = means_DS[rng.integers(0, len(means_DS), picked_DS.shape), picked_DS].mean(1)
    low, high = np.quantile(draws_D, [0.025, 0.975])
    value = float(np.mean([of(a) for a in arrays]))
    return Effect(name, value, float(low), float(high), sum(map(len, arrays)), unit, above)


def _effect(samples: Sequence[np.ndarray], name: str, unit: str, above: float) -> Effect:
    """Mean over seeds of the mean over units, with the two-level percentile bootstrap."""
    samples = [sample for sample in samples if len(sample)]
    if not samples:
        return Effect(name, None, None, None, 0, unit, above)
    rng = np.random.default_rng(0)
    S = len(samples)
    picked_DS = rng.integers(0, S, (DRAWS, S))
    means_DS = np.empty((DRAWS, S))
    for s, sample in enumerate(samples):
        here = picked_DS == s
        means_DS[here] = _resampled_means(sample, int(here.sum()), rng)
    low, high = np.quantile(means_DS.mean(1), [0.025, 0.975])
    value = float(np.mean([sample.mean() for sample in samples]))
    return Effect(name, value, float(low), float(high), sum(map(len, samples)), unit, above)


def _resampled_means(sample_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` bootstrap means of a sample."""
    return sample_N[rng.integers(0, len(sample_N), (count, len(sample_N)))].mean(1)
