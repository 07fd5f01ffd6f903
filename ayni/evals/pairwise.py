"""Which of several models answers better, from judgements of pairs: win rates, Bradley-Terry strengths, length control.

Ties count half; intervals draw prompts, with all that was judged on each (who is asked what, and in which order: raters.py). Letters: M models, n_ij comparisons of i and j, w_ij those that i won (ties half), p_i strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ayni.evals.statistics import SEED, mean_interval

TIE = 0.5
STEPS, TOLERANCE = 10_000, 1e-10  # of the MM iteration
NEWTON_STEPS = 100
RIDGE = 0.01  # keeps one-sided data finite
DRAWS = 400  # bootstrap draws where each needs a fit
PRIOR = 1.0  # virtual ties between two models that were compared


@dataclass(frozen=True)
class Comparison:
    """Answers of models a and b to one prompt. `points`: 1 where a is better, 0 where b is, 0.5 for a tie.

    `longer`: length of a's answer less that of b's, in any unit.
    """

    prompt: str
    a: str
    b: str
    points: float
    longer: float = 0.0


def turned(comparisons: Sequence[Comparison], a: str, b: str) -> list[Comparison]:
    """The comparisons of a with b, in this order of names."""
    same = [each for each in comparisons if (each.a, each.b) == (a, b)]
    others = [
        Comparison(each.prompt, a, b, 1 - each.points, -each.longer)
        for each in comparisons
        if (each.a, each.b) == (b, a)
    ]
    if not same and not others:
        raise ValueError(f"{a} and {b} were never compared")
    return same + others


def win_rate(comparisons: Sequence[Comparison], a: str, b: str) -> dict[str, Any]:
    """(wins + ties / 2) / n of a over b, with the bootstrap over prompts."""
    chosen = turned(comparisons, a, b)
    return mean_interval([each.points for each in chosen], "share", [each.prompt for each in chosen])


def bradley_terry(comparisons: Sequence[Comparison], prior: float = PRIOR) -> dict[str, dict[str, Any]]:
    """log p_i of each model, P(i beats j) = p_i / (p_i + p_j), centred at a mean of 0; strongest first.

    `prior` virtual ties are added to each pair that met, so that a model that never lost has a finite strength; 0 gives the
    maximum of the likelihood, where it exists. Intervals draw prompts.
    """
    names = sorted({name for each in comparisons for name in (each.a, each.b)})
    if len(names) < 2:
        raise ValueError("strengths need comparisons between two models at least")
    number = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(each.prompt for each in comparisons))}
    won_PMM = np.zeros((len(prompts), len(names), len(names)))
    for each in comparisons:
        if each.a == each.b:
            raise ValueError(f"prompt {each.prompt!r}: {each.a} is compared with itself")
        won_PMM[prompts[each.prompt], number[each.a], number[each.b]] += each.points
        won_PMM[prompts[each.prompt], number[each.b], number[each.a]] += 1 - each.points
    met_MM = (won_PMM + won_PMM.transpose(0, 2, 1)).sum(0) > 0
    virtual_MM = TIE * prior * met_MM
    strength_M = log_strengths(won_PMM.sum(0) + virtual_MM)
    rng = np.random.default_rng(SEED)
    drawn_DM = []
    for _ in range(DRAWS if prior > 0 else 0):
        weight_P = np.bincount(rng.integers(0, len(prompts), len(prompts)), minlength=len(prompts))
        drawn_DM.append(log_strengths(np.tensordot(weight_P, won_PMM, 1) + virtual_MM))
    bounds = np.quantile(drawn_DM, [0.025, 0.975], axis=0) if drawn_DM else np.full((2, len(names)), np.nan)
    found: dict[str, dict[str, Any]] = {
        name: {
            "value": float(strength_M[i]),
            "low": float(bounds[0, i]) if drawn_DM else None,
            "high": float(bounds[1, i]) if drawn_DM else None,
            "n": round(float(won_PMM[:, i].sum() + won_PMM[:, :, i].sum())),
            "unit": "log strength",
        }
        for name, i in number.items()
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]["value"]))


def log_strengths(won_MM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hunter's (2004) minorise-maximise iteration:  p_i <- W_i / sum_j n_ij / (p_i + p_j),  W_i = sum_j w_ij.

    ValueError where the maximum does not exist: some group of models never lost to the others, or never met them.
    """
    n_MM = won_MM + won_MM.T
    if not _strongly_connected(won_MM > 0):
        raise ValueError(
            "some models never lost to (or never met) the others, so strengths have no finite maximum; "
            "compare them more, or use a prior above 0"
        )
    W_M = won_MM.sum(1)
    p_M = np.ones(len(W_M))
    for _ in range(STEPS):
        new_M = W_M / (n_MM / (p_M[:, None] + p_M[None, :])).sum(1)
        new_M /= np.exp(np.log(new_M).mean())
        moved = float(np.abs(np.log(new_M / p_M)).max())
        p_M = new_M
        if moved < TOLERANCE:
            return np.log(p_M)
    raise ValueError(f"strengths still moved by {moved:.1e} after {STEPS} steps; use a larger prior")


def _strongly_connected(beat_MM: NDArray[np.bool_]) -> bool:
    """Whether every model beat every other, directly or through others."""
    reach_MM = beat_MM | np.eye(len(beat_MM), dtype=bool)
    for _ in range(len(beat_MM)):
        reach_MM = (reach_MM.astype(np.int64) @ reach_MM.astype(np.int64)) > 0
    return bool(reach_MM.all())


def length_controlled(comparisons: Sequence[Comparison], a: str, b: str) -> dict[str, Any]:
    """The win rate of a over b had their answers been of equal length: AlpacaEval 2's logistic regression (Dubois et al. 2024,
    "Length-Controlled AlpacaEval", arXiv 2404.04475, equation 3) without its term for the prompt's difficulty:

        P(a better) = sigmoid(theta + phi tanh(longer / sd(longer))),   figure = sigmoid(theta),   longer = len(a) - len(b)

    A weak ridge (RIDGE / 2 times the squares) keeps one-sided data finite. Bootstrap over prompts. Where one side always is the longer, theta and phi
    cannot be told apart.
    """
    chosen = turned(comparisons, a, b)
    longer_N = np.array([each.longer for each in chosen])
    spread = float(longer_N.std())
    x_N = np.tanh(longer_N / spread) if spread > 0 else np.zeros(len(chosen))
    y_N = np.array([each.points for each in chosen])
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(each.prompt for each in chosen))}
    cluster_N = np.array([prompts[each.prompt] for each in chosen])
    weight_DN = np.ones((DRAWS + 1, len(chosen)))  # the first: all as they are
    rng = np.random.default_rng(SEED)
    for weight_N in weight_DN[1:]:
        weight_N[:] = np.bincount(rng.integers(0, len(prompts), len(prompts)), minlength=len(prompts))[cluster_N]
    found_D = at_equal_length(x_N, y_N, weight_DN)
    value, (low, high) = float(found_D[0]), np.quantile(found_D[1:], [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high), "n": len(prompts), "unit": "share at equal length"}


def at_equal_length(
    x_N: NDArray[np.float64], y_N: NDArray[np.float64], weight_DN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """sigmoid(theta) of D weighted logistic regressions, y on 1 and x with the ridge, by Newton's method on all at once.

    A step is at most 1 long in theta and in phi: where the sides are separable, a whole one would leap past the optimum.
    """
    design_2N = np.stack([np.ones_like(x_N), x_N])
    theta_D2 = np.zeros((len(weight_DN), 2))
    for _ in range(NEWTON_STEPS):
        p_DN = expit(theta_D2 @ design_2N)
        slope_D2 = (weight_DN * (p_DN - y_N)) @ design_2N.T + RIDGE * theta_D2
        bend_DN = weight_DN * p_DN * (1 - p_DN)
        s0_D, s1_D, s2_D = (bend_DN @ x_N**power for power in (0, 1, 2))
        a_D, d_D = s0_D + RIDGE, s2_D + RIDGE
        step_D2 = (
            np.stack(
                [d_D * slope_D2[:, 0] - s1_D * slope_D2[:, 1], a_D * slope_D2[:, 1] - s1_D * slope_D2[:, 0]], axis=1
            )
            / (a_D * d_D - s1_D**2)[:, None]
        )
        step_D2 /= np.maximum(1.0, np.abs(step_D2).max(1))[:, None]
        theta_D2 -= step_D2
        if np.abs(step_D2).max() < TOLERANCE:
            break
    return np.asarray(expit(theta_D2[:, 0]))
