"""Intervals of paired arms: against a naive bootstrap, and where the answer is known."""

import random
from statistics import mean, quantiles

import pytest

from ayni.studies.paired import Outcomes, difference, level, negative, of_seeds
from ayni.studies.study import Conclusion, Effect, Outcome


def outcomes(arms):
    return Outcomes({arm: {s: Outcome({"hit": values}) for s, values in seeds.items()} for arm, seeds in arms.items()})


def noisy(seed, shift, n=80):
    rng = random.Random(seed)
    return {f"p{i}": rng.random() + shift for i in range(n)}


def test_an_interval_is_the_naive_two_level_bootstrap():
    seeds = {0: noisy(1, 0.0), 1: noisy(2, 0.3), 2: noisy(3, 0.1, n=20)}
    found = level(outcomes({"a": seeds}), "hit", "a")
    rng, draws = random.Random(7), []
    for _ in range(3000):
        picked = [list(seeds[rng.choice([0, 1, 2])].values()) for _ in range(3)]
        draws.append(mean(mean(rng.choices(values, k=len(values))) for values in picked))
    cuts = quantiles(draws, n=40)
    assert found.value == pytest.approx(mean(mean(v.values()) for v in seeds.values()))
    assert found.low == pytest.approx(cuts[0], abs=0.015)
    assert found.high == pytest.approx(cuts[-1], abs=0.015)
    assert found.n == 180


def test_pairing_by_prompt_takes_out_what_both_arms_share():
    base = {s: noisy(s, 0.0) for s in range(3)}
    better = {s: {key: value + 0.01 for key, value in values.items()} for s, values in base.items()}
    effect = difference(outcomes({"a": better, "b": base}), "hit", "a", "b")
    assert (effect.value, effect.low, effect.high) == pytest.approx((0.01, 0.01, 0.01))
    assert effect.verdict == "holds"


def test_only_units_that_both_arms_have_are_compared():
    effect = difference(outcomes({"a": {0: {"x": 1.0, "y": 5.0}}, "b": {0: {"x": 0.0, "z": 9.0}}}), "hit", "a", "b")
    assert (effect.value, effect.n) == (1.0, 1)


def test_a_metric_may_be_compared_with_another_of_the_same_arm():
    both = Outcomes({"a": {0: Outcome({"new": {"x": 0.7}, "old": {"x": 0.2}})}})
    assert difference(both, "new", "a", "a", metric_against="old").value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("low", "high", "above", "verdict"),
    [
        (0.1, 0.3, 0.0, "holds"),
        (-0.1, 0.3, 0.0, "not resolved"),
        (-0.3, -0.1, 0.0, "does not hold"),
        (-0.01, 0.02, -0.05, "holds"),  # "stays": no worse than the margin
        (None, None, 0.0, "not resolved"),
    ],
)
def test_the_interval_decides(low, high, above, verdict):
    value = None if low is None else (low + high) / 2
    assert Effect("d", value, low, high, 10, above=above).verdict == verdict


def test_a_claim_holds_if_all_its_effects_do():
    good, bad, open_ = (Effect("d", v, v - 0.1, v + 0.1, 9) for v in (0.5, -0.5, 0.0))

    def verdict(*effects):
        return Conclusion(effects, [], [], []).verdict

    assert verdict(good, good) == "holds"
    assert verdict(good, open_) == "not resolved"
    assert verdict(good, open_, bad) == "does not hold"


def test_a_fall_is_a_rise_with_its_sign_turned():
    fall = negative(Effect("d", -0.4, -0.6, -0.1, 5), "falls")
    assert (fall.low, fall.value, fall.high, fall.verdict) == (0.1, 0.4, 0.6, "holds")


def test_quantities_of_seeds_and_metrics_that_no_seed_has():
    assert of_seeds([1.0, 2.0, 3.0], "slope", "1").value == 2.0
    empty = level(outcomes({"a": {0: {}}}), "hit", "a")
    assert (empty.value, empty.n, empty.verdict, empty.cell()) == (None, 0, "not resolved", "–")
