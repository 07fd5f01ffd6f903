"""Table 28: does a margin by strength of preference help a reward model where the preference is strong?"""

from __future__ import annotations

from ayni.artifacts import read_json
from ayni.evals.reward_models import ranked_right
from ayni.feedback.schema import STRENGTHS
from ayni.scoring.reward import load_reward_model
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import load_tokenizer

PAPER = {  # Table 28, percent: significantly, better, slightly, negligibly better, average
    "none": (79.1, 66.9, 59.8, 54.5, 62.5),
    "small": (80.4, 67.3, 60.4, 55.0, 63.0),
    "large": (80.7, 67.5, 60.5, 54.3, 62.9),
}


def measure(lab: Lab, arm: str) -> Outcome:
    """A helpfulness model with the margin `arm` on one and the same set of preferences."""
    data = lab.data()
    base = lab.base(data)
    gathered = lab.preferences(data, lab.variants(data, base))
    model = lab.reward("helpfulness", data, lab.sft(data, base), [gathered], margin=arm)
    rows = [row for row in read_preferences(gathered / "held_out.jsonl") if row["prompt_kind"] == "helpful"]
    right = ranked_right(load_reward_model(model), load_tokenizer(model), rows, lab.version.reward)
    values: dict[str, dict[str, float]] = {"all": {}}
    for row, hit in zip(rows, right, strict=True):
        values["all"][row["id"]] = float(hit)
        values.setdefault(STRENGTHS[row["strength"]], {})[row["id"]] = float(hit)
    return Outcome(values, {"pairs": read_json(gathered / "summary.json")["pairs"]})


def conclude(outcomes: Outcomes) -> Conclusion:
    strengths = list(reversed(STRENGTHS))
    rows, series = [], []
    for arm, paper in PAPER.items():
        levels = [level(outcomes, name, arm) for name in (*strengths, "all")]
        rows.append([f"{arm}, ours", *(e.cell(100, 1) for e in levels)])
        rows.append([f"{arm}, paper", *(f"{figure:.1f}" for figure in paper)])
        series.append(
            Series(
                arm,
                strengths,
                [e.value for e in levels[:-1]],
                [e.low for e in levels[:-1]],
                [e.high for e in levels[:-1]],
            )
        )
    strongest = strengths[0]
    return Conclusion(
        effects=[
            difference(outcomes, strongest, "small", "none", f"accuracy on {strongest} pairs, small margin minus none"),
        ],
        columns=["margin", *strengths, "all"],
        rows=rows,
        panels=[
            Panel("ours", "strength of preference", "accuracy", series, "bars"),
            Panel("Table 28", "strength of preference", "accuracy", [Series(arm, strengths, [f / 100 for f in figures[:-1]], paper=True) for arm, figures in PAPER.items()], "bars"),
        ],
    )  # fmt: skip


STUDY = Study(
    name="margin",
    group="reward",
    claim="A margin that grows with the strength of preference makes a reward model more accurate on the strongest preferences.",
    paper="Table 28: accuracy on significantly better pairs 79.1 without a margin, 80.4 with the small, 80.7 with the large one.",
    arms=tuple(PAPER),
    measure=measure,
    conclude=conclude,
    method="The helpfulness model, trained once on the same preferences with each margin; held-out pairs, by the strength that the annotator gave.",
)
