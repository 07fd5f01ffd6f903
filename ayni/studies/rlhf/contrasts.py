"""Effects that involve more than two arms or count wins: unit by unit inside each seed, as everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ayni.studies.paired import Outcomes, level
from ayni.studies.study import Effect, Outcome
from ayni.studies.verdicts import wins

Term = tuple[float, str, str]  # weight, metric, arm


def contrast(outcomes: Outcomes, terms: Sequence[Term], name: str, unit: str = "share", above: float = 0.0) -> Effect:
    """sum_j w_j a_j over the units that all terms have.

    The difference of two gains: (1, m, "A after"), (-1, m, "A before"), (-1, m, "B after"), (1, m, "B before").
    """

    def of_seed(seed: int) -> dict[str, float]:
        columns = [outcomes.by[arm][seed].values.get(metric, {}) for _, metric, arm in terms]
        shared = [key for key in columns[0] if all(key in column for column in columns)]
        return {key: sum(term[0] * column[key] for term, column in zip(terms, columns)) for key in shared}

    return _level(outcomes, of_seed, name, unit, above)


def win_share(outcomes: Outcomes, metric: str, arm: str, against: str, name: str = "", above: float = 0.5) -> Effect:
    """(wins + ties / 2) / n of `arm` over `against`, by a metric of which more is better."""

    def of_seed(seed: int) -> dict[str, float]:
        ours, theirs = (outcomes.by[who][seed].values.get(metric, {}) for who in (arm, against))
        return wins(ours, theirs)

    return _level(outcomes, of_seed, name or f"{metric}: win share of {arm} over {against}", "share", above)


def _level(
    outcomes: Outcomes, of_seed: Callable[[int], dict[str, float]], name: str, unit: str, above: float
) -> Effect:
    values = {seed: Outcome({"value": of_seed(seed)}) for seed in outcomes.seeds}
    return level(Outcomes({"arms": values}), "value", "arms", name, unit, above)
