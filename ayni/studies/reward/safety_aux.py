"""Table 29: does the auxiliary safe/unsafe loss help the safety model, above all to find unsafe answers by their score?"""

from __future__ import annotations

from ayni.feedback.pairs import SAFE
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.reward.of_scores import separation
from ayni.studies.reward.scored import blocked, by_prompt, curve, of_rows, prompt_of, ranked, reward_model
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study

WEIGHTS = {"without": 0.0, "with": 0.5}  # of the loss; the paper gives none
PAPER = {  # Table 29, percent: all, one safe, both safe, both unsafe; recall of unsafe answers at score 0.5
    "without": (63.7, 93.0, 56.0, 59.5, 73.0),
    "with": (64.5, 94.3, 56.9, 59.9, 90.4),
}
METRICS = ("all", "chosen_only", "both", "neither", "recall")
WORDS = ("all pairs", "one safe", "both safe", "both unsafe", "unsafe answers found at 0.5")
COST = 0.01  # of accuracy, that counts as none


def measure(lab: Lab, arm: str) -> Outcome:
    """The safety model with or without the loss: pairs ranked right by their safety label, answers found unsafe at 0.5."""
    pairs = ranked(lab, reward_model(lab, "safety", safety_weight=WEIGHTS[arm]), "safety")
    accuracies = [(name, prompt_of(p.row), float(p.right)) for p in pairs for name in ("all", p.row["safety"])]
    answers = [
        (prompt_of(pair.row), r, safe)
        for pair in pairs
        for r, safe in zip((pair.r_chosen, pair.r_rejected), SAFE[pair.row["safety"]])
    ]
    # sigma(r) < 0.5 is r < 0
    found = [("false alarm" if safe else "recall", prompt, float(r < 0)) for prompt, r, safe in answers]
    return Outcome(
        by_prompt([*accuracies, *found]),
        {"answers": blocked((prompt, (r, float(not safe))) for prompt, r, safe in answers)},
    )


def conclude(outcomes: Outcomes) -> Conclusion:
    rows, bars = [], []
    for arm, paper in PAPER.items():
        levels = [level(outcomes, name, arm) for name in METRICS]
        area = of_rows([outcomes.by[arm][seed].facts["answers"] for seed in outcomes.seeds], separation, arm, "area")
        rows.append([f"{arm}, ours", *(e.cell(100, 1) for e in levels), level(outcomes, "false alarm", arm).cell(100, 1), area.cell()])  # fmt: skip
        rows.append([f"{arm}, paper", *(f"{figure:.1f}" for figure in paper), "–", "–"])
        bars.append(curve(arm, WORDS, levels))
    return Conclusion(
        effects=[
            difference(outcomes, "recall", "with", "without", "unsafe answers found at a score of 0.5, with the loss minus without"),
            difference(outcomes, "all", "with", "without", "accuracy on safety pairs, with the loss minus without", above=-COST),
        ],
        columns=["auxiliary loss", *WORDS, "safe answers below 0.5", "area under ROC"],
        rows=rows,
        panels=[
            Panel("ours", "safety pairs", "accuracy, recall", bars, "bars"),
            Panel("Table 29", "safety pairs", "accuracy, recall", [Series(arm, WORDS, [f / 100 for f in figures], paper=True) for arm, figures in PAPER.items()], "bars"),
        ],
        remarks=[
            "The ranking loss leaves open where zero lies, so 0.5 means nothing without the auxiliary loss; the area under the ROC curve of unsafe "
            "against safe answers does not depend on it, and says whether the loss separates them better."
        ],
    )  # fmt: skip


STUDY = Study(
    name="safety-aux",
    group="reward",
    claim="The auxiliary safety loss lets the safety model find more of the unsafe answers at a score of 0.5, at no cost in accuracy (one point at most).",
    paper="Table 29: recall of unsafe answers at 0.5 from 73.0 to 90.4, accuracy from 63.7 to 64.5, a little better in each of the three classes of pairs.",
    arms=tuple(WEIGHTS),
    measure=measure,
    conclude=conclude,
    method="The safety model, trained once on the same preferences, with the loss at weight 0.5 and at 0; held-out safety pairs by the annotator's safety label, and their answers.",
)
