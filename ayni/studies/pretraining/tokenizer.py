"""Section 2.2, tokenizer: numbers split into single digits, against numbers cut like words."""

from __future__ import annotations

from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.pretraining.held_out_text import losses, right
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import load_tokenizer

ARMS = {"digits": True, "whole-numbers": False}
SAMPLES = 8  # answers to a prompt
TASKS = ("sum", "date", "fact")


def measure(lab: Lab, arm: str) -> Outcome:
    """A base model and its SFT on that tokenizer; right sums (and, for comparison, dates and facts), loss per character."""
    data = lab.data()
    if ARMS[arm]:
        base = lab.base(data)
    else:
        base = lab.base(data, tokenizer=lab.tokenizer(data, split_digits=False))
    values = losses(base, data)
    tuned = lab.sft(data, base)
    for task in TASKS:
        rows = [row for row in read_prompts(data / "prompts_eval.jsonl") if row["task"] == task]
        values[f"right_{task}"] = right(lab, data, tuned, rows, SAMPLES if task == "sum" else 1)
    return Outcome(values, {"tokens": len(load_tokenizer(base).encode("17 plus 12 is 29."))})


def conclude(outcomes: Outcomes) -> Conclusion:
    rows, series = [], []
    for arm in ARMS:
        shares = [level(outcomes, f"right_{task}", arm) for task in TASKS]
        nats = [level(outcomes, metric, arm) for metric in ("loss arithmetic", "loss")]
        tokens = outcomes.by[arm][outcomes.seeds[0]].facts["tokens"]
        rows.append([arm, tokens, *(e.cell(100, 1) for e in shares), *(e.cell(digits=4) for e in nats)])
        series.append(Series(arm, list(TASKS), [e.value for e in shares], [e.low for e in shares], [e.high for e in shares]))  # fmt: skip
    return Conclusion(
        effects=[
            difference(outcomes, "right_sum", "digits", "whole-numbers", "right sums, digits minus whole numbers"),
            difference(outcomes, "loss arithmetic", "whole-numbers", "digits", "loss of held-out arithmetic, whole numbers minus digits", "nats per character"),
        ],
        columns=["numbers", "tokens of “17 plus 12 is 29.”", "sums right, %", "dates right, %", "facts right, %", "loss of arithmetic, nats per character", "loss of all text"],
        rows=rows,
        panels=[Panel("right answers after SFT", "task", "share right", series, "bars")],
        remarks=[
            "The world's sums stay below 31 and its corpus tells all of them: with whole numbers a model can learn each by heart.",
            "Not told to split digits, SentencePiece also joins a number to the full stop behind it; nothing else differs.",
        ],
    )  # fmt: skip


STUDY = Study(
    name="tokenizer",
    group="pretraining",
    claim="A tokenizer that splits numbers into digits makes a model of equal training better at sums.",
    paper="2.2: “As with Llama 1, we split all numbers into individual digits”; the paper gives no figure for the choice.",
    arms=tuple(ARMS),
    measure=measure,
    conclude=conclude,
    method="Two tokenizers of equal vocabulary trained on the same corpus; pretraining and SFT with equal tokens and settings.",
)
