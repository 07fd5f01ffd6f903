"""Section 3.2.3: the gate, safety score first where it matters, against the sum of both scores and against one model for both."""

from __future__ import annotations

from ayni.scoring.reward import Scorers
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference
from ayni.studies.rlhf.chain import gathered, scorers, start
from ayni.studies.rlhf.shown import examined, examined_bars
from ayni.studies.study import Conclusion, Outcome, Study
from ayni.studies.verdicts import judged

WORDS = {
    "sft": "SFT",
    "gated": "PPO, gated reward",
    "sum": "PPO, sum of both rewards",
    "one": "PPO, one reward model for both",
}
LOSS = 0.03  # of utility, which counts as none


def measure(lab: Lab, arm: str) -> Outcome:
    """The same PPO from the same SFT model, by reward models of the same preferences."""
    begin = start(lab)
    model = begin.sft
    if arm == "one":
        both = lab.reward("helpfulness", begin.data, begin.sft, gathered(lab, begin), mix="both")
        model = lab.ppo(begin.data, begin.sft, Scorers(both, None))
    elif arm != "sft":
        model = lab.ppo(begin.data, begin.sft, scorers(lab, begin), gate=arm)
    return Outcome(judged(lab.evaluate(begin.data, model), begin.data))


def conclude(outcomes: Outcomes) -> Conclusion:
    columns, rows = examined(outcomes, WORDS)
    others = {"sum": "the sum", "one": "one model"}
    return Conclusion(
        effects=[
            *(difference(outcomes, "violation", arm, "gated", f"violations, {said} minus gated") for arm, said in others.items()),
            *(difference(outcomes, "utility", "gated", arm, f"utility on benign prompts, gated minus {said}", "points", above=-LOSS) for arm, said in others.items()),
        ],
        columns=columns,
        rows=rows,
        panels=[examined_bars(outcomes, WORDS)],
    )  # fmt: skip


STUDY = Study(
    name="gate",
    group="rlhf",
    claim=f"PPO by the gated reward violates less than PPO by the sum of both rewards or by one model for both, and costs no utility (less than {LOSS} of a point).",
    paper="Section 3.2.3 takes the safety score on safety prompts and wherever it is below 0.15, else the helpfulness score (precision 0.89 and recall 0.55 of unsafe answers on the safety test set). No comparison is shown.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="PPO from the SFT model, equal in all but the reward. One model for both: the helpfulness model's training on all pairs of both kinds alike, our likelihood term included. "
    "The gate's threshold is the safety model's own, for precision 0.89 on held-out pairs.",
)
