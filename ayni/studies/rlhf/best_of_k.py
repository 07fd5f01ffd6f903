"""Figure 7: the maximum reward among K samples grows with K, the median does not; and so what sampling can gain."""

from __future__ import annotations

import numpy as np

from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.rlhf.chain import scorers, start
from ayni.studies.rlhf.sampled import best_of
from ayni.studies.rlhf.shown import line
from ayni.studies.study import Conclusion, Outcome, Panel, Study

KS = (1, 2, 4, 8, 16, 32)
PROMPTS = 150
TEMPERATURE = 1.0
UNITS = {"max": "standard deviations", "utility": "points"}


def measure(lab: Lab, arm: str) -> Outcome:
    """K samples of the SFT model to each held-out prompt, by V1's reward models and by the examiner."""
    begin = start(lab)
    ks = KS[:3] if lab.smoke else KS
    sampled = best_of(
        lab, begin.data, begin.sft, scorers(lab, begin), prompts=PROMPTS, k=ks[-1], temperature=TEMPERATURE
    )
    spread = float(sampled.reward_NK.std())  # one seed's reward models may score wider than another's
    judge = lab.judge(begin.data)
    values: dict[str, dict[str, float]] = {}
    for row, texts, reward_K in zip(sampled.rows, sampled.texts, sampled.reward_NK.numpy()):
        utility_K = [verdict.utility for verdict in judge.judge(row, texts)]
        for k in ks:
            first_k = reward_K[:k]
            values.setdefault(f"max {k}", {})[row["id"]] = float(first_k.max()) / spread
            values.setdefault(f"median {k}", {})[row["id"]] = float(np.median(first_k)) / spread
            values.setdefault(f"utility {k}", {})[row["id"]] = utility_K[int(first_k.argmax())]
    return Outcome(values, {"ks": list(ks)})


def conclude(outcomes: Outcomes) -> Conclusion:
    (arm,) = outcomes.by
    ks = outcomes.by[arm][outcomes.seeds[0]].facts["ks"]
    curves = {name: [level(outcomes, f"{name} {k}", arm) for k in ks] for name in ("max", "median", "utility")}
    last, half = ks[-1], ks[-2]
    gains = (
        ("max", last, 1, f"max reward of {last} minus that of 1"),
        ("max", last, half, f"max reward of {last} minus that of {half}"),
        ("utility", last, 1, f"examiner's utility of the best of {last} minus that of 1"),
    )
    return Conclusion(
        effects=[
            difference(outcomes, f"{name} {k}", arm, arm, words, UNITS[name], metric_against=f"{name} {over}")
            for name, k, over, words in gains
        ],
        columns=["K", "max reward", "median reward", "examiner's utility of the best"],
        rows=[[k, *(curves[name][i].cell() for name in curves)] for i, k in enumerate(ks)],
        panels=[
            Panel("reward models", "K samples", f"reward ({UNITS['max']})", [line(name, ks, curves[name]) for name in ("max", "median")], log_x=True),
            Panel("examiner", "K samples", "utility of the best by reward", [line("best of K", ks, curves["utility"])], log_x=True),
        ],
    )  # fmt: skip


STUDY = Study(
    name="best-of-k",
    group="rlhf",
    claim="The best reward among K samples keeps growing with K, and what is best by reward is better by the examiner too.",
    paper="Figure 7: the maximum reward rises with K while the median stays; the gap is what rejection sampling can gain.",
    arms=("sft",),
    measure=measure,
    conclude=conclude,
    method="K answers of the SFT model at temperature 1 to held-out prompts, scored by V1's gated reward.",
)
