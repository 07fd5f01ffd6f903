"""Figure 8: the sampling temperature whose best of K has the highest reward, before and after RLHF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ayni.scoring.best_of import best_ended
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, level, statistic
from ayni.studies.rlhf.chain import scorers, start, versions
from ayni.studies.rlhf.sampled import best_of
from ayni.studies.rlhf.shown import line
from ayni.studies.study import Conclusion, Outcome, Panel, Study

TEMPERATURES = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
KS = (1, 4, 16)
PROMPTS = 100
WORDS = {"sft": "SFT", "v1": "V1"}


def measure(lab: Lab, arm: str) -> Outcome:
    """Max reward of the first K samples at every temperature, same prompts and draws, by V1's gated reward."""
    begin = start(lab)
    model = begin.sft if arm == "sft" else versions(lab, begin, 1)[0]
    by, ks = scorers(lab, begin), KS[:2] if lab.smoke else KS
    values: dict[str, dict[str, float]] = {}
    for temperature in TEMPERATURES[1::2] if lab.smoke else TEMPERATURES:
        sampled = best_of(lab, begin.data, model, by, prompts=PROMPTS, k=ks[-1], temperature=temperature)
        for k in ks:
            best_N = best_ended(sampled.reward_NK[:, :k], sampled.ended_NK[:, :k]).tolist()
            values[f"{k} at {temperature}"] = {row["id"]: best for row, best in zip(sampled.rows, best_N)}
    return Outcome(values, {"ks": list(ks)})


def conclude(outcomes: Outcomes) -> Conclusion:
    first = outcomes.by["sft"][outcomes.seeds[0]]
    ks, temperatures = first.facts["ks"], sorted({float(name.split(" at ")[1]) for name in first.values})

    def of_seed(arm: str, k: int, seed: int) -> np.ndarray:
        values = outcomes.by[arm][seed].values
        return np.array([list(values[f"{k} at {t}"].values()) for t in temperatures]).T

    def best(arm: str, k: int) -> str:
        samples = [of_seed(arm, k, seed) for seed in outcomes.seeds]
        return statistic(samples, lambda reward_NT: peak(temperatures, reward_NT.mean(0)), "best", "").cell()

    def shift(k: int) -> list[np.ndarray]:
        return [np.stack([of_seed(arm, k, seed) for arm in WORDS], 1) for seed in outcomes.seeds]

    effects = [
        statistic(
            shift(k),
            lambda reward_N2T: (
                peak(temperatures, reward_N2T[:, 1].mean(0)) - peak(temperatures, reward_N2T[:, 0].mean(0))
            ),
            f"best temperature for K = {k}, V1 minus SFT",
            "temperature",
        )
        for k in reversed(ks)
        if k > 1
    ]
    return Conclusion(
        effects=effects,
        columns=["K", *(f"best temperature, {said}" for said in WORDS.values()), "the paper, after RLHF"],
        rows=[[k, *(best(arm, k) for arm in WORDS), "1.2 to 1.3" if k >= 10 else "–"] for k in ks],
        panels=[
            Panel(said, "temperature", "max reward (score)", [line(f"K = {k}", temperatures, [level(outcomes, f"{k} at {t}", arm) for t in temperatures]) for k in ks])
            for arm, said in WORDS.items()
        ],
    )  # fmt: skip


def peak(x_T: Sequence[float], y_T: np.ndarray) -> float:
    """Where the parabola through the highest point and its two neighbours has its top; at an end, the end."""
    i = int(np.argmax(y_T))
    if i in (0, len(x_T) - 1):
        return float(x_T[i])
    a, b, _ = np.polyfit(x_T[i - 1 : i + 2], y_T[i - 1 : i + 2], 2)
    return float(-b / (2 * a)) if a < 0 else float(x_T[i])


STUDY = Study(
    name="temperature",
    group="rlhf",
    claim="RLHF raises the temperature at which the best of K samples has the highest reward.",
    paper="Figure 8: RLHF shifts the best temperature up; for 10 to 100 samples it lies between 1.2 and 1.3 after RLHF, and so it is tuned anew at each version.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="The SFT model and V1, made from it by rejection sampling; 16 answers to each of 100 held-out prompts at seven temperatures, by V1's gated reward; an answer cut by length is never the best. "
    "A best temperature is the top of the parabola through the highest mean and its neighbours.",
)
