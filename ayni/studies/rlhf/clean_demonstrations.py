"""How much of RLHF's gain is undoing faults of the demonstrations: RLHF from noisy and from clean ones."""

from __future__ import annotations

from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference
from ayni.studies.rlhf.chain import start, versions
from ayni.studies.rlhf.contrasts import Term, contrast
from ayni.studies.rlhf.shown import examined, examined_bars
from ayni.studies.study import Conclusion, Outcome, Study
from ayni.studies.verdicts import judged

WORDS = {
    "noisy": "SFT, noisy",
    "noisy-rlhf": "V1 from noisy SFT",
    "clean": "SFT, clean",
    "clean-rlhf": "V1 from clean SFT",
}
FILES = {"noisy": "sft.jsonl", "clean": "sft_clean.jsonl"}


def measure(lab: Lab, arm: str) -> Outcome:
    """SFT on one kind of demonstrations, or V1 from it with preferences and reward models of its own."""
    kind, _, rlhf = arm.partition("-")
    begin = start(lab, FILES[kind])
    model = versions(lab, begin, 1)[0] if rlhf else begin.sft
    return Outcome(judged(lab.evaluate(begin.data, model), begin.data))


def conclude(outcomes: Outcomes) -> Conclusion:
    columns, rows = examined(outcomes, WORDS)

    def gain(kind: str, sign: int = 1) -> list[Term]:
        return [(sign, "utility", f"{kind}-rlhf"), (-sign, "utility", kind)]

    noisy = contrast(outcomes, gain("noisy"), "RLHF's gain in utility, noisy demonstrations", "points")
    clean = contrast(outcomes, gain("clean"), "RLHF's gain in utility, clean demonstrations", "points")
    cleaning = difference(outcomes, "utility", "clean", "noisy", "gain in utility by cleaning alone", "points")
    more = contrast(outcomes, [*gain("noisy"), *gain("clean", -1)], "RLHF's gain in utility, noisy minus clean demonstrations", "points")  # fmt: skip
    return Conclusion(
        effects=[more, noisy, clean],
        columns=columns,
        rows=rows,
        panels=[examined_bars(outcomes, WORDS)],
        remarks=[
            f"Utility x 100: cleaning the demonstrations alone brings {cleaning.cell(100, 1)}; RLHF brings {noisy.cell(100, 1)} on noisy and "
            f"{clean.cell(100, 1)} on clean ones. The part of RLHF's gain that was undoing faults is the difference of the two, {more.cell(100, 1)}."
        ],
    )


STUDY = Study(
    name="clean-demonstrations",
    group="rlhf",
    claim="RLHF gains more where demonstrations are faulty than where they are clean, and still gains where they are clean.",
    paper="Section 5.1: people's demonstrations vary and the worst are learned too; reward models soon learn to score that tail low. Section 3.1: few good demonstrations beat many poor ones. The paper has no arm of cleaned demonstrations.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="The same prompts with the demonstrations as written, faults planted, or with the faults taken out; from each a first version: its own preferences, reward models and rejection sampling.",
)
