"""Which samples a reader sees, and in what order: every task, failures too."""

from __future__ import annotations

from typing import Any

from ayni.report.results import Run

SAMPLES = 24
GOOD = {"right", "helpful", "safe", "correct", "truthful", "good", "ok"}
BAD = {"wrong", "myth", "rude", "harmful", "violation", "toxic", "off_topic", "bad", "error"}

Row = dict[str, Any]


def tone(label: str | None) -> str:
    """The colour class of a label. A refusal is neither: whether it is right depends on the prompt."""
    return "good" if label in GOOD else "bad" if label in BAD else "plain"


def sample_groups(run: Run) -> list[Row]:
    """About 24 samples by task, answers in the order of the results table, each with its label."""
    order = [checkpoint["name"] for checkpoint in run.checkpoints]
    return [
        {"task": task, "rows": [{**row, "answers": _in_order(row, order)} for row in rows]}
        for task, rows in chosen(run.samples, SAMPLES, order).items()
    ]


def chosen(rows: list[Row], n: int, order: list[str]) -> dict[str, list[Row]]:
    """n rows, an equal share of each task, as task -> rows."""
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(str(row.get("task", "")), []).append(row)
    quotas = dict.fromkeys(tasks, 0)
    for i in range(max(map(len, tasks.values()), default=0)):
        for task, found in tasks.items():
            quotas[task] += i < len(found) and sum(quotas.values()) < n
    return {task: pick(found, quotas[task], order) for task, found in tasks.items() if quotas[task]}


def pick(rows: list[Row], quota: int, order: list[str]) -> list[Row]:
    """Every second one a failure of the last version, as long as there are both."""
    failed = [row for row in rows if tone(_last_label(row, order)) == "bad"]
    passed = [row for row in rows if row not in failed]
    mixed = [row for pair in zip(passed, failed) for row in pair]
    longer = passed if len(passed) > len(failed) else failed
    return (mixed + longer[len(mixed) // 2 :])[:quota]


def _last_label(row: Row, order: list[str]) -> str | None:
    labels = row.get("labels") or {}
    present = [name for name in order if name in labels and name in row["answers"]]
    return labels[present[-1]] if present else None


def _in_order(row: Row, order: list[str]) -> list[Row]:
    """The answers in the order of the results table, each with its label."""
    names = sorted(row["answers"], key=lambda name: order.index(name) if name in order else len(order))
    labels = row.get("labels") or {}
    return [{"name": name, "text": row["answers"][name], "label": labels.get(name)} for name in names]
