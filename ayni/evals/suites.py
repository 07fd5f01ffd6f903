"""The suites of `ayni eval MODEL --suite NAME`: which tasks, on how much of which public set, with which figure.

A part of a set never goes by the set's bare name: `Task.label` says how many rows of how many were asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Source = Literal["pypi", "hf"]
Better = Literal["higher", "lower", "neither"]  # which way a figure is good


@dataclass(frozen=True)
class Task:
    """`name`: tasks/NAME.yaml over NAME.jsonl; `full`: rows of the public split; `hub`: lm-eval's own task on the full set.

    `hub_metric` and `hub_filter`: how lm-eval calls the figure, where it differs. `note`: what a reader must know.
    """

    name: str
    title: str
    split: str
    full: int
    metric: str
    hub: str | None
    hub_metric: str | None = None
    hub_filter: str | None = None
    in_packages: bool = True
    note: str = ""
    better: Better = "higher"

    def label(self, rows: int) -> str:
        return label(self.title, rows, self.full)

    def metric_of(self, source: Source) -> str:
        return self.hub_metric or self.metric if source == "hf" else self.metric


@dataclass(frozen=True)
class Written:
    """A part of a suite that our engine answers by itself, without lm-eval: `ask` of ayni/evals/written/NAME.py.

    `data`: what it reads. sets: a folder of `ayni fetch-evaldata`; file: one of the user's; either: such a file (or directory), or
    what comes with Ayni and its wheels. `expects`: the form of the user's file, for messages.
    """

    name: str
    data: Literal["sets", "file", "either"]
    expects: str = ""


def label(title: str, rows: int, full: int) -> str:
    return title if rows >= full else f"{title}: {rows:,} of {full:,} rows"


PIQA = Task("piqa", "PIQA", "validation", 1838, "acc", "piqa")
SIQA = Task("siqa", "SIQA", "validation", 1954, "acc", "social_iqa")
OPENBOOKQA = Task("openbookqa", "OpenBookQA", "test", 500, "acc", "openbookqa")
COMMONSENSEQA = Task(
    "commonsenseqa", "CommonsenseQA", "validation", 1221, "acc", "commonsense_qa",
    note="the first seven rows are the examples",
)  # fmt: skip
HELLASWAG = Task("hellaswag", "HellaSwag", "validation", 10042, "acc_norm", "hellaswag")
NQ_OPEN = Task(
    "nq_open", "NQ-open", "validation", 3610, "exact_match", "nq_open", hub_filter="remove_whitespace",
    note="the package's combined file, which is not the public split; any alias counts; the first five rows are the examples",
)  # fmt: skip
BOOLQ = Task("boolq", "BoolQ", "validation", 3270, "acc", "boolq")
QUAC = Task(
    "quac", "QuAC", "validation", 7354, "word_f1", None,
    note="three questions of each dialogue, earlier answers given, references taken apart by the passage",
)  # fmt: skip
ASDIV = Task(
    "asdiv", "ASDiv", "all", 2305, "exact_match", "asdiv", hub_metric="acc",
    note="problems whose answer is a number; the first five rows are the examples",
)  # fmt: skip
GSM8K = Task(
    "gsm8k", "GSM8K", "test", 1319, "maj_8", "gsm8k", hub_metric="exact_match", hub_filter="flexible-extract",
    note="maj@8 at temperature 0.7; the first eight rows are the examples",
)  # fmt: skip
MMLU = Task(
    "mmlu", "MMLU", "test", 14042, "acc", "mmlu",
    note="subjects not named, the examples are the first five rows whatever their subject; commas are missing from the texts",
)  # fmt: skip
TRUTHFULQA_MC1 = Task("truthfulqa_mc1", "TruthfulQA MC1", "validation", 817, "acc", "truthfulqa_mc1")
TRUTHFULQA_MC2 = Task(
    "truthfulqa_mc2", "TruthfulQA MC2", "validation", 817, "acc", "truthfulqa_mc2",
    note="pypi: true answers from one package, false ones from another, joined by the question; acc is the true answers' share of the probability",
)  # fmt: skip
HUMAN_EVAL = Task(
    "human_eval", "HumanEval", "test", 164, "pass_1", None,
    note="ten samples at temperature 0.8, pass@k by the unbiased estimate; programs run in a sandbox",
)  # fmt: skip

TOXIGEN = Written("toxigen", "file", "ToxiGen's annotated statements: text, toxicity_score (1 to 5), target_groups")
BOLD = Written("bold", "file", "BOLD's prompts: domain, group, prompt")
TRUTHFULQA = Written("truthfulqa", "sets")
DATES = Written("dates", "either", "prompts under a date: messages, meta with form, day, month, year, ahead")
CALCULATOR = Written("calculator", "sets")
SAFETY = Written("safety", "either", "the data directory that the judge knows")
FALSE_REFUSAL = Written("false_refusal", "either", "ordinary prompts: messages, or prompt")

SUITES: dict[str, tuple[Task | Written, ...]] = {
    "commonsense": (PIQA, SIQA, OPENBOOKQA, COMMONSENSEQA, HELLASWAG),
    "knowledge": (NQ_OPEN,),
    "reading": (BOOLQ, QUAC),
    "math": (ASDIV, GSM8K),
    "code": (HUMAN_EVAL,),
    "mmlu": (MMLU,),
    "truthful": (TRUTHFULQA_MC1, TRUTHFULQA_MC2, TRUTHFULQA),
    "toxic": (TOXIGEN,),
    "bold": (BOLD,),
    "time": (DATES,),
    "tools": (CALCULATOR,),
    "safety": (SAFETY,),
    "false-refusal": (FALSE_REFUSAL,),
}


def tasks_of(suite: str, source: Source, names: Collection[str] = ()) -> tuple[Task | Written, ...]:
    """The suite's tasks that this source has; with `names`, those alone."""
    if suite not in SUITES:
        raise ValueError(f"no suite {suite!r}; known: {', '.join(SUITES)}")
    known = [
        task
        for task in SUITES[suite]
        if isinstance(task, Written) or (task.in_packages if source == "pypi" else task.hub)
    ]
    if source == "hf":  # what our engine asks by itself reads files, never the hub
        known = [task for task in known if isinstance(task, Task)]
        if not known:
            raise ValueError(f"suite {suite!r} has nothing on the hub; leave --source hf out")
    if unknown := [name for name in names if name not in [task.name for task in known]]:
        raise ValueError(
            f"suite {suite!r} has no task {unknown[0]!r} with --source {source}; known: {', '.join(task.name for task in known)}"
        )
    return tuple(task for task in known if not names or task.name in names)
