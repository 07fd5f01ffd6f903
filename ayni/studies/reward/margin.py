"""Table 28 and figure 27: does a margin by strength of preference help where the preference is strong, and split the scores?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ayni.feedback.schema import STRENGTHS
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.reward.of_scores import bimodality
from ayni.studies.reward.scored import (
    Blocks,
    blocked,
    by_prompt,
    curve,
    of_rows,
    padded,
    prompt_of,
    ranked,
    reward_model,
    rows_of,
)
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study

PAPER = {  # Table 28, percent: significantly, better, slightly, negligibly better, average
    "none": (79.1, 66.9, 59.8, 54.5, 62.5),
    "small": (80.4, 67.3, 60.4, 55.0, 63.0),
    "large": (80.7, 67.5, 60.5, 54.3, 62.9),
}
BINS = 24  # of the histogram of scores


def measure(lab: Lab, arm: str) -> Outcome:
    """A helpfulness model with the margin `arm`: which held-out pairs it ranks right, and all its scores of their answers."""
    pairs = ranked(lab, reward_model(lab, "helpfulness", margin=arm), "helpful")
    values = by_prompt(
        (name, prompt_of(pair.row), pair.right) for pair in pairs for name in ("all", STRENGTHS[pair.row["strength"]])
    )
    return Outcome(
        values, {"scores": blocked((prompt_of(pair.row), [r]) for pair in pairs for r in (pair.r_chosen, pair.r_rejected))}
    )  # fmt: skip


def conclude(outcomes: Outcomes) -> Conclusion:
    strengths = list(reversed(STRENGTHS))
    strongest = strengths[0]
    scores = {arm: [outcomes.by[arm][seed].facts["scores"] for seed in outcomes.seeds] for arm in PAPER}
    rows, bars = [], []
    for arm, paper in PAPER.items():
        levels = [level(outcomes, name, arm) for name in (*strengths, "all")]
        split = of_rows(scores[arm], lambda rows_N1: bimodality(rows_N1[:, 0]), arm, "coefficient")
        rows.append([f"{arm}, ours", *(e.cell(100, 1) for e in levels), split.cell()])
        rows.append([f"{arm}, paper", *(f"{figure:.1f}" for figure in paper), "–"])
        bars.append(curve(arm, strengths, levels[:-1]))
    return Conclusion(
        effects=[
            difference(outcomes, strongest, "small", "none", f"accuracy on {strongest} pairs, small margin minus none"),
            difference(outcomes, strongest, "large", "none", f"accuracy on {strongest} pairs, large margin minus none"),
            of_rows([*map(side_by_side, scores["large"], scores["none"])], split_more, "bimodality of the scores, large margin minus none", "coefficient"),
        ],
        columns=["margin", *strengths, "all", "bimodality"],
        rows=rows,
        panels=[
            Panel("ours", "strength of preference", "accuracy", bars, "bars"),
            Panel("Table 28", "strength of preference", "accuracy", [Series(arm, strengths, [f / 100 for f in figures[:-1]], paper=True) for arm, figures in PAPER.items()], "bars"),
            Panel("scores of held-out answers, ours", "r", "density", histograms({arm: centred(scores[arm]) for arm in PAPER})),
        ],
    )  # fmt: skip


def side_by_side(first: Blocks, second: Blocks) -> Blocks:
    """Two models' scores of the same answers as two columns."""
    return {prompt: [[*a, *b] for a, b in zip(rows, second[prompt], strict=True)] for prompt, rows in first.items()}


def split_more(rows_N2: np.ndarray) -> float:
    return bimodality(rows_N2[:, 0]) - bimodality(rows_N2[:, 1])


def centred(blocks: Sequence[Blocks]) -> np.ndarray:
    """Scores of all seeds, each seed's about its own mean, which the ranking loss leaves open."""
    return np.concatenate([rows - rows.mean() for rows in (rows_of(block)[:, 0] for block in padded(blocks))])


def histograms(scores_by_arm: dict[str, np.ndarray]) -> list[Series]:
    """Densities over the same bins; the outermost half per cent on either side of all scores is left out."""
    low, high = np.quantile(np.concatenate(list(scores_by_arm.values())), [0.005, 0.995])
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    centres = ((edges[:-1] + edges[1:]) / 2).tolist()
    width = edges[1] - edges[0]
    return [
        Series(arm, centres, (np.histogram(score_N, edges)[0] / len(score_N) / width).tolist())
        for arm, score_N in scores_by_arm.items()
    ]


STUDY = Study(
    name="margin",
    group="reward",
    claim="A margin that grows with the strength of preference makes a reward model more accurate on the strongest preferences, and its scores more bimodal.",
    paper="Table 28: accuracy on significantly better pairs 79.1 without a margin, 80.4 with the small, 80.7 with the large one. Figure 27: with a margin the scores split in two, the more so the larger it is.",
    arms=tuple(PAPER),
    measure=measure,
    conclude=conclude,
    method="The helpfulness model, trained once on the same preferences with each margin; held-out pairs, by the strength that the annotator gave. Bimodality is Sarle's coefficient of the raw scores of their answers.",
)
