"""Section 2.1: up-sampling the most factual source "to increase knowledge and dampen hallucinations"."""

from __future__ import annotations

from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.pretraining.held_out_text import losses
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.studies.verdicts import judged

ARMS = ("up-sampled", "as-found")
SOURCES = ("encyclopaedia", "stories", "dialogues", "arithmetic", "forum", "howto")


def measure(lab: Lab, arm: str) -> Outcome:
    """A base model on that mixture: loss by source, and after SFT what it knows, of facts and against myths."""
    data = lab.data()
    factor = lab.recipe.shards.upsample["encyclopaedia"]
    if arm == "up-sampled":
        base = lab.base(data)
    else:
        base = lab.base(data, upsample={**lab.recipe.shards.upsample, "encyclopaedia": 1.0})
    answered = judged(lab.evaluate(data, lab.sft(data, base)), data)
    return Outcome({**losses(base, data), **answered}, {"factor": factor})


def conclude(outcomes: Outcomes) -> Conclusion:
    by_source = {arm: [level(outcomes, f"loss {source}", arm) for source in SOURCES] for arm in ARMS}
    known = {arm: [level(outcomes, metric, arm) for metric in ("facts_right", "truthful")] for arm in ARMS}
    rows = [[arm, *(e.cell(100, 1) for e in known[arm]), *(e.cell(digits=3) for e in by_source[arm])] for arm in ARMS]
    factor = outcomes.by["up-sampled"][outcomes.seeds[0]].facts["factor"]
    return Conclusion(
        effects=[
            difference(outcomes, "facts_right", *ARMS, "facts right, up-sampled minus as found"),
            difference(outcomes, "truthful", *ARMS, "myths answered with the truth, up-sampled minus as found"),
            difference(outcomes, "loss encyclopaedia", "as-found", "up-sampled", "loss of the encyclopaedia, as found minus up-sampled", "nats per character"),
        ],
        columns=["mixture", "facts right, %", "myths answered with the truth, %", *(f"loss, {source}" for source in SOURCES)],
        rows=rows,
        panels=[
            Panel("answers after SFT", "asked", "share right", [Series(arm, ["facts", "myths"], [e.value for e in known[arm]], [e.low for e in known[arm]], [e.high for e in known[arm]]) for arm in ARMS], "bars"),
            Panel("held-out loss", "source", "nats per character", [Series(arm, list(SOURCES), [e.value for e in by_source[arm]], [e.low for e in by_source[arm]], [e.high for e in by_source[arm]]) for arm in ARMS], "bars"),
        ],
        remarks=[f"Up-sampled: a token of the encyclopaedia counts {factor:g} times. The budget of tokens is the same, so every other source is read less."],
    )  # fmt: skip


STUDY = Study(
    name="mixture",
    group="pretraining",
    claim="Up-sampling the most factual source teaches more facts, and more truth where another source tells a myth, from the same number of tokens.",
    paper="2.1: the most factual sources were up-sampled “to increase knowledge and dampen hallucinations”; the paper gives no figure for it.",
    arms=ARMS,
    measure=measure,
    conclude=conclude,
    method="Two base models on the same corpus with equal tokens; the weight of the encyclopaedia alone differs. SFT and evaluation are the same.",
)
