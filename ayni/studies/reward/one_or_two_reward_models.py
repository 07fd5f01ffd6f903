"""Table 7: do two reward models, one for helpfulness and one for safety, rank better than one for both?"""

from __future__ import annotations

from typing import Any

from ayni.feedback.mix import Kind
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.reward.scored import by_prompt, curve, prompt_of, ranked, reward_model
from ayni.studies.study import Conclusion, Outcome, Panel, Study

ARMS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "helpfulness": ("helpfulness", {}),
    "safety": ("safety", {}),
    "one": ("safety", {"mix": "both"}),  # all pairs alike, and the safety model's auxiliary loss
    "helpfulness-own": ("helpfulness", {"mix": "own"}),
    "safety-own": ("safety", {"mix": "own"}),
}
WORDS = {
    "helpfulness": "helpfulness model",
    "safety": "safety model",
    "one": "one model for both",
    "helpfulness-own": "helpfulness, own pairs alone",
    "safety-own": "safety, own pairs alone",
}
PAPER = {"helpfulness": ("63.2", "62.8"), "safety": ("56.2", "64.5")}  # Table 7, percent: helpful pairs, safety pairs
DOMAINS = ("helpful", "safety")


def measure(lab: Lab, arm: str) -> Outcome:
    """The model of an arm on the held-out pairs of both domains."""
    kind, updates = ARMS[arm]
    pairs = ranked(lab, reward_model(lab, kind, **updates))
    return Outcome(by_prompt((pair.row["prompt_kind"], prompt_of(pair.row), pair.right) for pair in pairs))


def conclude(outcomes: Outcomes) -> Conclusion:
    levels = {arm: [level(outcomes, domain, arm) for domain in DOMAINS] for arm in ARMS}
    rows = []
    for arm in ARMS:
        rows.append([WORDS[arm], *(e.cell(100, 1) for e in levels[arm]), *PAPER.get(arm, ("–", "–"))])

    def gap(domain: str, arm: str, against: str) -> Any:
        return difference(
            outcomes, domain, arm, against, f"accuracy on {domain} pairs, {WORDS[arm]} minus {WORDS[against]}"
        )

    return Conclusion(
        effects=[
            gap("helpful", "helpfulness", "one"),
            gap("safety", "safety", "one"),
            gap("helpful", "helpfulness", "safety"),
            gap("safety", "safety", "helpfulness"),
        ],
        columns=["reward model", "helpful pairs, ours", "safety pairs, ours", "helpful pairs, paper", "safety pairs, paper"],
        rows=rows,
        panels=[Panel("ours", "reward model", "accuracy on held-out pairs", [curve(f"{domain} pairs", list(WORDS.values()), [levels[arm][i] for arm in ARMS]) for i, domain in enumerate(DOMAINS)], "bars")],
        remarks=[
            "We have fewer safety pairs than helpful ones, so the equal parts of the helpfulness mix take them all in: that model and the one model "
            "see the same pairs, and differ by the safety loss alone. The last two rows are specialists in the strict sense."
        ],
    )  # fmt: skip


STUDY = Study(
    name="one-or-two-reward-models",
    group="reward",
    claim="Each of two specialised reward models ranks the pairs of its own domain better than one model for both does, and better than the other specialist.",
    paper="Section 3.2.2 trains two, since helpfulness and safety sometimes pull apart. Table 7: the helpfulness model has 63.2 on helpful and 62.8 on safety pairs, the safety model 56.2 and 64.5; one model for both is not shown.",
    arms=tuple(ARMS),
    measure=measure,
    conclude=conclude,
    method="The helpfulness model and the safety model, each with the paper's mix of the same preferences; one model on all of them alike with the safety loss; and the two on nothing but their own pairs. One epoch each.",
)
