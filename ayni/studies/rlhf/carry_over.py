"""Section 3.2.3: V3, tuned on V2's samples alone, forgot what earlier versions could do; top samples of all versions mend it."""

from __future__ import annotations

from pathlib import Path

from ayni.artifacts import Artifact, build
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.rlhf.chain import full, scorers, start
from ayni.studies.rlhf.shown import examined, line
from ayni.studies.study import Conclusion, Outcome, Panel, Study
from ayni.studies.verdicts import Values, judged
from ayni.text.sources import read_prompts, write_jsonl

# What each round's prompts ask for.
BATCHES = (
    ("sum", "smalltalk", "instruction", "system", "date"),
    ("fact", "myth", "multiturn"),
    ("harmful", "borderline"),
)
PROMPTS = 400  # of a round
WORDS = {
    "earlier": "V1, V2 in their time",
    "without": "V3 without",
    "longer": "V3 without, longer",
    "with": "V3 with",
}


def deal(data: Path, out: Path, *, seed: int) -> Artifact:
    """The training prompts by round: batch-1.jsonl, ..."""

    def work_in(work: Path) -> None:
        rows = read_prompts(data / "prompts_train.jsonl")
        for number, tasks in enumerate(BATCHES, start=1):
            write_jsonl(work / f"batch-{number}.jsonl", [row for row in rows if row["task"] in tasks])

    return build(out, "batches", {"batches": BATCHES}, {"data": data}, seed, work_in)


def measure(lab: Lab, arm: str) -> Outcome:
    """Three rounds of rejection sampling, each on other tasks and from the latest model; the third as `arm` says."""
    begin = start(lab)
    by = scorers(lab, begin)
    batches = lab.make("batches", deal, begin.data)

    def sample(number: int, latest: Path, earlier: list[Path], **updates: int) -> Path:
        settings = {"carry_over_from": 3, **full(lab, prompts=PROMPTS), **updates}
        return lab.rejection(batches / f"batch-{number}.jsonl", latest, latest, by, earlier, number, **settings)

    first = sample(1, begin.sft, [])
    second = sample(2, first, [first])
    if arm == "earlier":
        own = [judged(lab.evaluate(begin.data, model), begin.data) for model in (first, second)]
        return Outcome({name: kept for values, tasks in zip(own, BATCHES) for name, kept in _right(values, tasks)})
    earlier = [first, second] if arm == "with" else []
    more = {"epochs": 3 * lab.version.rejection.epochs} if arm == "longer" else {}
    values = judged(lab.evaluate(begin.data, sample(3, second, earlier, **more)), begin.data)
    return Outcome(values)


def _right(values: Values, tasks: tuple[str, ...]) -> list[tuple[str, dict[str, float]]]:
    return [(f"right_{task}", values[f"right_{task}"]) for task in tasks]


def conclude(outcomes: Outcomes) -> Conclusion:
    tasks = [task for batch in BATCHES[:2] for task in batch]
    outcomes = Outcomes({arm: {seed: _with_all(outcome, tasks) for seed, outcome in of.items()} for arm, of in outcomes.by.items()})  # fmt: skip
    columns, rows = examined(outcomes, {arm: WORDS[arm] for arm in WORDS if arm != "earlier"})
    names = ["earlier tasks", *tasks]
    columns += [f"{name} right, %" for name in names]
    rows.insert(0, [WORDS["earlier"], *["–"] * (len(columns) - 1 - len(names))])
    levels = {arm: [level(outcomes, f"right_{name}", arm) for name in names] for arm in WORDS}
    rows = [[*row, *(e.cell(100, 1) for e in levels[arm])] for arm, row in zip(WORDS, rows)]
    metric = "right_earlier tasks"
    return Conclusion(
        effects=[
            difference(outcomes, metric, "with", "without", "earlier tasks right, V3 with earlier samples minus without"),
            difference(outcomes, metric, "with", "longer", "earlier tasks right, V3 with earlier samples minus without but as many steps"),
            difference(outcomes, metric, "earlier", "without", "earlier tasks right, V1 and V2 in their time minus V3 without earlier samples"),
        ],
        columns=columns,
        rows=rows,
        panels=[Panel("tasks of earlier rounds", "", "share right", [line(WORDS[arm], names, levels[arm]) for arm in WORDS], "bars")],
    )  # fmt: skip


def _with_all(outcome: Outcome, tasks: list[str]) -> Outcome:
    """With every prompt of the earlier rounds' tasks under one metric."""
    together = {key: hit for task in tasks for key, hit in outcome.values[f"right_{task}"].items()}
    return Outcome({**outcome.values, "right_earlier tasks": together}, outcome.facts)


STUDY = Study(
    name="carry-over",
    group="rlhf",
    claim="A third version that is tuned on its own samples alone forgets what earlier versions could do, and top samples of all earlier versions keep it.",
    paper="Section 3.2.3: V3 used the samples of the version before only and lost abilities (it rhymed worse than earlier versions); with top samples of all earlier versions this was mended. No figure is given.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="Rejection sampling three times over, each from the latest model and each on prompts of other tasks (skills, then facts, then safety), so that there is something to forget: "
    "the paper does not say how its rounds differed. V1's reward models throughout. V1 and V2 in their time: each on the tasks of its own round. V3 with: its own best samples and those of V1 and V2. Longer: V3 without, at three times the epochs, about as many steps as V3 with.",
)
