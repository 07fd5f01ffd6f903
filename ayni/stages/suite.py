"""`ayni eval MODEL --suite NAME`: a model on public test sets, and beside another model on the same questions.

Every question is kept with its prompt, its answers and its points (`items/TASK.jsonl`); results.json holds the figures with their
intervals, and what each is made of: source, rows, examples, template. Two evaluations are compared question by question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, read_json, write_json
from ayni.config_measuring import SuiteSettings
from ayni.evals import attack_split, evaldata
from ayni.evals.answering import Answering
from ayni.evals.harness import ask, figure, lm_eval_ready
from ayni.evals.paired import differences
from ayni.evals.suites import Task, Written, tasks_of
from ayni.evals.written import bold, calculator, dates, false_refusal, safety, toxigen, truthfulqa
from ayni.evals.written.part import Part
from ayni.model.checkpoint import load_model
from ayni.text.sources import read_jsonl, write_jsonl
from ayni.text.tokenizer import load_tokenizer

RESULTS = "results.json"
ITEMS = "items"
WIDE = 7  # columns beside the first that a table has on the screen
WRITTEN: dict[str, Callable[..., list[Part]]] = {
    "toxigen": toxigen.ask,
    "bold": bold.ask,
    "truthfulqa": truthfulqa.ask,
    "dates": dates.ask,
    "calculator": calculator.ask,
    "safety": safety.ask,
    "false_refusal": false_refusal.ask,
}


def run(settings: SuiteSettings, model: Path, out: Path, *, data: Path | None = None) -> Artifact:
    """Writes results.json and items/TASK.jsonl. `data`: a folder of `ayni fetch-evaldata` (None: the cache's, fetched if need be),
    or the user's file for the suites that read one."""
    tasks = tasks_of(settings.suite, settings.source, settings.tasks)
    if any(isinstance(task, Task) for task in tasks):
        try:
            lm_eval_ready(settings.source)
        except ImportError as error:
            own = [task.name for task in tasks if isinstance(task, Written)]
            raise ImportError(
                f"{error}; without it: {', '.join(f'--task {name}' for name in own)}" if own else str(error)
            ) from None
    data = data_for(settings, tasks, data)

    def work_in(work: Path) -> None:
        answering = Answering(
            load_model(model, settings.dtype), load_tokenizer(model), work / "state" / "requests.jsonl"
        )
        parts: list[Part] = []
        for task in tasks:
            telemetry.say(f"  {task.title if isinstance(task, Task) else task.name}")
            if isinstance(task, Task):
                parts.append(by_lm_eval(answering, task, settings, data, work))
            else:
                parts += WRITTEN[task.name](answering, settings, data, work / "state")
        figures: dict[str, Any] = {}
        for part in parts:
            write_jsonl(work / ITEMS / f"{part.name}.jsonl", (item.row() for item in part.items))
            figures[part.name] = part.figure
            figures |= {f"{part.name} {name}": further for name, further in part.figures.items()}
        write_json(
            work / RESULTS,
            {
                "checkpoints": [{"name": model.name, "path": None, "metrics": figures}],
                "tasks": [about(part, settings) for part in parts],
                "tables": [table.row() for part in parts for table in part.tables],
                "settings": settings.model_dump(mode="json"),
            },
        )

    given = {"model": model, "data": data, **files_of(settings)}
    return build(out, "suite", settings.model_dump(mode="json"), given, settings.seed, work_in)


def files_of(settings: SuiteSettings) -> dict[str, Path | None]:
    """The files that settings name, for an artifact's fingerprint."""
    trained = {f"trained {number}": path for number, path in enumerate(settings.trained, 1)}
    named = {"labels": settings.labels, "judge_prompt": settings.judge_prompt, **trained}
    return {**named, **attack_split.inputs(settings.attacks)}


def data_for(settings: SuiteSettings, tasks: Sequence[Task | Written], data: Path | None) -> Path | None:
    """What the tasks read: the user's file, or the folder of fetched sets; None where they need neither."""
    if settings.source == "hf":
        return None
    for task in tasks:
        if isinstance(task, Written) and task.data != "sets":
            if task.data == "file" and data is None:
                raise ValueError(f"suite {settings.suite!r} asks about a file of yours: --data FILE, {task.expects}")
            return data
    return data or evaldata.fetch().path


def by_lm_eval(answering: Answering, task: Task, settings: SuiteSettings, data: Path | None, work: Path) -> Part:
    chat, metric = settings.template == "chat", task.metric_of(settings.source)
    asked = ask(answering, task, settings.source, data, work / "state", limit=settings.limit, chat=chat)
    others = sorted({name for item in asked.items for name in item.points} - {metric})
    return Part(
        name=task.name,
        label=task.label(len(asked.items)),
        source=settings.source,
        split=task.split,
        of=task.full,
        shots=asked.shots,
        metric=metric,
        items=asked.items,
        figure=figure(asked.items, metric),
        figures={name: figure(asked.items, name) for name in others},
        note=task.note,
        better=task.better,
    )


def about(part: Part, settings: SuiteSettings) -> dict[str, Any]:
    """What a figure is made of, for the tables."""
    return {
        "task": part.name,
        "label": part.label,
        "split": part.split,
        "source": part.source,
        "rows": len(part.items),
        "of": part.of,
        "shots": part.shots,
        "template": settings.template,
        "metric": part.metric,
        "better": part.better,
        "note": part.note,
    }


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
    for table in results["tables"]:
        for first in range(1, len(table["columns"]), WIDE):  # a screen holds no eighteen professions
            cut = slice(first, first + WIDE)
            rows = [[row[0], *row[cut]] for row in table["rows"]]
            telemetry.table([table["columns"][0], *table["columns"][cut]], rows, title=table["title"])
    for note in dict.fromkeys(task["note"] for task in results["tasks"] if task["note"]):
        telemetry.show(f"{', '.join(task['task'] for task in results['tasks'] if task['note'] == note)}: {note}")


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
        better = sorted({task["better"] for task in read_json(ours / RESULTS)["tasks"]})
        found = differences(*points) | {"better": better, "metrics": sorted(set(metrics.values()))}
        write_json(work / "tax.json", found)

    return build(out, "suite-difference", {}, {"ours": ours, "theirs": theirs}, 0, work_in)


def show_tax(comparison: Path, ours: str, theirs: str) -> None:
    """One line, and a row per task."""
    tax = read_json(comparison / "tax.json")
    rows = [[name, f["value"], f"{f['low']:.3f} to {f['high']:.3f}", f["n"]] for name, f in tax["tasks"].items()]
    telemetry.table([f"{theirs} - {ours}", "difference", "95% interval", "questions"], rows)
    all_ = tax["all"]
    if tax["metrics"] == [false_refusal.METRIC]:  # what alignment costs here is what it added: ours - theirs
        telemetry.show(
            f"alignment tax: {100 * (0 - all_['value']):+.1f} points of harmless prompts refused "
            f"[{100 * (0 - all_['high']):+.1f}, {100 * (0 - all_['low']):+.1f}] ({ours} minus {theirs}, mean over {len(rows)} kinds of prompts, "
            f"{all_['n']:,} prompts, paired bootstrap)"
        )
        return
    # Points are a tax only where more of them is better: less toxicity is no loss, and sentiment has no good end.
    called = "alignment tax" if tax["better"] == ["higher"] else f"difference (better: {', '.join(tax['better'])})"
    telemetry.show(
        f"{called}: {100 * all_['value']:+.1f} points [{100 * all_['low']:+.1f}, {100 * all_['high']:+.1f}] "
        f"({theirs} minus {ours}, mean over {len(rows)} tasks, {all_['n']:,} questions, paired bootstrap)"
    )
