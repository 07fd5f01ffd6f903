"""One task of a suite, run by lm-eval with our model: every question with its prompt, its answers and its points."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from ayni.evals.answering import Answering
from ayni.evals.statistics import mean_interval, missing, share
from ayni.evals.suites import Source, Task
from ayni.evals.tasks import points

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Item:
    """A question as it was put and what came of it. `answers`: texts, or [log-probability, is greedy] of each choice."""

    id: str
    prompt: str
    choices: list[str]  # the continuations compared; empty where an answer was written
    answers: list[Any]
    gold: Any
    points: dict[str, float]

    def row(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class Asked:
    items: list[Item]
    shots: int


def lm_eval_ready(source: Source) -> ModuleType:
    """lm.py, the file that imports lm-eval; ImportError, naming the extra, where it is not installed."""
    # Read by the libraries when they are imported: no bars beside ours, and no questions to the hub about local files.
    quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    for name, value in (quiet | {"HF_HUB_OFFLINE": "1"} if source == "pypi" else quiet).items():
        os.environ.setdefault(name, value)
    return importlib.import_module("ayni.evals.lm")


def ask(
    answering: Answering, task: Task, source: Source, data: Path | None, work: Path, *, limit: int | None, chat: bool
) -> Asked:
    """Runs the task and returns its questions in order. `work`: where the `datasets` library may keep its copy.

    ImportError (naming the extra) without lm-eval; ValueError where the full set cannot be had.
    """
    lm = lm_eval_ready(source)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if source == "pypi":
        assert data is not None, "the packages' data was fetched"
        asked: str | dict[str, Any] = _over_local_rows(task, data, work)
    else:
        assert task.hub is not None, f"{task.name} has no task on the hub"
        asked = task.hub
    try:
        with redirect_stdout(StringIO()):  # results alone go to standard output
            found: Mapping[str, Any] | None = lm.simple_evaluate(
                model=lm.AyniLM(answering),
                tasks=[asked],
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                task_manager=lm.TaskManager(include_defaults=source == "hf"),
            )
    except (ConnectionError, OSError) as error:
        raise ValueError(f"{task.title}: the set could not be had ({error}); try --source pypi") from None
    assert found is not None, "one process alone evaluates"
    shots = max((int(count) for count in found.get("n-shot", {}).values() if count is not None), default=0)
    samples = [sample for of_task in found["samples"].values() for sample in of_task]
    if source == "hf" and task.hub_filter is not None:
        samples = [sample for sample in samples if sample.get("filter") == task.hub_filter]
    return Asked([_item(sample, task.metric_of(source)) for sample in samples], shots)


class _SafeTasks(yaml.SafeLoader):
    """Plain YAML, but for `!function points.NAME`: a function of tasks/points.py, as lm-eval's own files have it."""


_SafeTasks.add_constructor("!function", lambda _, node: getattr(points, str(node.value).removeprefix("points.")))


def settings_of_task(name: str) -> dict[str, Any]:
    """tasks/NAME.yaml. A safe loader's document: no tag but `!function` makes anything else than plain values."""
    with (TASKS / f"{name}.yaml").open(encoding="utf-8") as stream:
        settings: dict[str, Any] = _SafeTasks(stream).get_single_data()
    return settings


def _over_local_rows(task: Task, data: Path, work: Path) -> dict[str, Any]:
    """The task's YAML with the place of its rows filled in."""
    settings = settings_of_task(task.name)
    files = {"test": str(data / f"{task.name}.jsonl")}
    if settings.get("fewshot_split") == "shots":
        files["shots"] = str(data / f"{task.name}_shots.jsonl")
    return settings | {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(work / "datasets")},
        "test_split": "test",
    }


def _item(sample: Mapping[str, Any], metric: str) -> Item:
    """lm-eval's sample. Each request's arguments are (prompt, continuation) or (prompt, generation settings)."""
    arguments = [tuple(request) for request in sample["arguments"]]
    is_choice = isinstance(arguments[0][1], str)
    names = {metric, *sample.get("metrics", [])}
    return Item(
        id=str(sample["doc"].get("id", sample["doc_id"])),
        prompt=arguments[0][0],
        choices=[continuation for _, continuation in arguments] if is_choice else [],
        answers=[answer for request in sample["resps"] for answer in request],
        gold=sample["doc"].get("golds", sample["target"]),
        points={name: float(sample[name]) for name in sorted(names) if isinstance(sample.get(name), int | float)},
    )


def figure(items: Sequence[Item], metric: str) -> dict[str, Any]:
    """The mean of a metric over the questions with its 95% interval: Wilson's for right or wrong, else the bootstrap."""
    points = [item.points[metric] for item in items if metric in item.points]
    if not points:
        return missing()
    if all(point in (0.0, 1.0) for point in points):
        return share([point == 1.0 for point in points])
    return mean_interval(points, "mean of points from 0 to 1")


def choice_of(item: Item) -> int:
    """The choice whose log-probability is highest, the first of equals."""
    log_probs = [float(log_prob) for log_prob, _ in item.answers]
    return log_probs.index(max(log_probs))
