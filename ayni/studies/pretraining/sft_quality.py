"""Section 3.1, "quality is all you need": few curated demonstrations against many with faults."""

from __future__ import annotations

import random
from pathlib import Path

from ayni.artifacts import Artifact, build
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.studies.verdicts import judged
from ayni.text.sources import read_jsonl, write_jsonl

FEW = 4  # one of so many rows is kept, and read so many times as often
METRICS = ("utility", "right", "facts_right", "truthful", "refusal", "violation")
CHATS = "chats.jsonl"
ARMS = {  # demonstrations, one row of how many, epochs over the recipe's
    "many-noisy": ("sft", 1, 1),
    "few-curated": ("sft_clean", FEW, FEW),
    "few-curated-twice": ("sft_clean", FEW, 1),
    "few-noisy": ("sft", FEW, FEW),
    "many-curated": ("sft_clean", 1, 1),
}


def few(chats: Path, one_of: int, out: Path, *, seed: int) -> Artifact:
    """Writes chats.jsonl: one row of every `one_of`, drawn by the seed; equal rows of files that run parallel."""

    def work_in(work: Path) -> None:
        rows = read_jsonl(chats)
        kept = sorted(random.Random(f"few {seed}").sample(range(len(rows)), len(rows) // one_of))
        write_jsonl(work / CHATS, (rows[i] for i in kept))

    return build(out, "few-chats", {"one_of": one_of}, {"chats": chats}, seed, work_in)


def measure(lab: Lab, arm: str) -> Outcome:
    """The same base model fine-tuned on these demonstrations, judged by the examiner."""
    name, one_of, more = ARMS[arm]
    data = lab.data()
    base = lab.base(data)
    if arm == "many-noisy":
        model = lab.sft(data, base)
    else:
        chats = data / f"{name}.jsonl"
        if one_of > 1:
            chats = lab.make("few-chats", few, chats, one_of) / CHATS
        model = lab.sft(data, base, chats, epochs=more * lab.recipe.sft.epochs)
    rows = len(read_jsonl(data / f"{name}.jsonl")) // one_of
    return Outcome(judged(lab.evaluate(data, model), data), {"rows": rows, "epochs": more * lab.recipe.sft.epochs})


def conclude(outcomes: Outcomes) -> Conclusion:
    rows, series = [], []
    for arm in ARMS:
        facts = outcomes.by[arm][outcomes.seeds[0]].facts
        levels = [level(outcomes, metric, arm) for metric in METRICS]
        rows.append([arm, facts["rows"], facts["epochs"], levels[0].cell(), *(e.cell(100, 1) for e in levels[1:])])
        series.append(
            Series(arm, list(METRICS), [e.value for e in levels], [e.low for e in levels], [e.high for e in levels])
        )
    return Conclusion(
        effects=[
            difference(outcomes, "utility", "few-curated", "many-noisy", "utility on benign prompts, few curated minus many noisy", "points"),
            difference(outcomes, "violation", "many-noisy", "few-curated", "violations, many noisy minus few curated"),
            difference(outcomes, "utility", "few-curated", "few-noisy", "utility, few curated minus the same few with their faults", "points"),
        ],
        columns=["demonstrations", "rows", "epochs", "utility", *(f"{metric.replace('_', ' ')}, %" for metric in METRICS[1:])],
        rows=rows,
        panels=[Panel("after SFT, by the examiner", "", "share, or points", series, "bars")],
        remarks=["The curated answers are those of the same prompts with every planted fault undone."],
    )  # fmt: skip


STUDY = Study(
    name="sft-quality",
    group="pretraining",
    claim="A quarter of the demonstrations, curated, make a more helpful and a safer model than all of them with their annotators' faults, in as many steps.",
    paper="3.1: setting aside millions of third-party examples and using fewer but better ones improved results notably; 27,540 annotations were enough.",
    arms=tuple(ARMS),
    measure=measure,
    conclude=conclude,
    method="One base model, fine-tuned with the recipe's settings; few demonstrations are read as many times more, so that the number of steps is about equal (and, in an arm of their own, twice like the many).",
)
