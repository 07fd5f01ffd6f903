"""The last screen of a run: the report's main table in a terminal, from results.json alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ayni.artifacts import read_json
from ayni.report import results as read
from ayni.report.samples import chosen, tone
from ayni.telemetry import show

WIDE = 100  # columns from which the full heads and airy gaps fit
TONES = {"good": "green", "bad": "red", "plain": "cyan"}


class ResultsTable:
    """The compact table; short heads and narrow gaps where the terminal is narrow."""

    def __init__(self, checkpoints: Sequence[dict[str, Any]]) -> None:
        self.checkpoints = read.grouped(list(checkpoints))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        metrics = read.columns(self.checkpoints)
        drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1 if wide else 0, 0, 0), pad_edge=False, show_edge=False)
        drawn.add_column("checkpoint", overflow="fold", vertical="bottom")
        for metric in metrics:
            head = Text("\n".join((metric.title if wide else metric.brief).split(" ", 1)))
            drawn.add_column(head, justify="right", no_wrap=True, vertical="bottom")
        kinds = [read.kind_of(checkpoint) for checkpoint in self.checkpoints]
        for checkpoint, kind, following in zip(self.checkpoints, kinds, [*kinds[1:], None]):
            style = "" if kind == "trained" else "dim"
            cells = [Text(checkpoint["name"].replace("_", " "), style=style or "bold")]
            cells += [self._cell(checkpoint, metric, style) for metric in metrics]
            drawn.add_row(*cells, end_section=following not in (None, kind))
        yield drawn

    def _cell(self, checkpoint: dict[str, Any], metric: read.Metric, style: str) -> Text:
        found = read.figure(checkpoint, metric.name)
        best = checkpoint["name"] in read.best_names(self.checkpoints, metric)
        cell = Text(read.shown(found), style="bold green" if best else style)
        around = read.interval(found)
        if metric.name == "helpful_win_vs_sft" and around:
            cell.append(f" [{around.replace(read.DASH, ', ')}]", style="dim")
        return cell


def last_screen(run_dir: Path) -> list[RenderableType]:
    """What `ayni run` prints when it is done: table, ceiling, where the report is, what to type next."""
    run_dir = Path(run_dir)
    results = read.read_results(run_dir)
    checkpoints = results["checkpoints"]
    parts: list[RenderableType] = [
        Text(f"{results.get('name') or run_dir.name}: held-out results\n", style="bold"),
        ResultsTable(checkpoints),
        Text("\nIn percent, except tokens and KL (nats). Brackets: 95% interval. Bold: best.", style="dim"),
        *_beside_the_table(read.trained(checkpoints)),
    ]  # fmt: skip
    if (results.get("settings") or {}).get("fetch"):
        parts.append(Padding(before_and_after(results), (1, 0, 0, 0)))
    points = read.ceiling_points(results)
    if points:
        listed = ", ".join(f"K={point['k']} {100 * point['value']:.1f}%" for point in points)
        parts.append(Text(f"Best-of-K ceiling by ground truth: {listed}"))
    report = run_dir / "report.html"
    lines = [("report", str(report)), ("chat", f"ayni chat {shlex.quote(str(run_dir))}")]
    last = read.trained(checkpoints)[-1:]
    if last and last[0].get("path"):
        model = shlex.quote(str(run_dir / last[0]["path"]))
        lines.append(("go on", f"ayni sft --model {model} --data chats.jsonl --out models/mine"))
    shown = Table.grid(padding=(0, 2))
    for name, text in lines:
        shown.add_row(Text(name, style="dim"), Text(text, style="bold", overflow="fold"))
    return [*parts, Padding(shown, (1, 0, 0, 0))]


def _beside_the_table(trained: list[dict[str, Any]]) -> list[RenderableType]:
    """Two lines that the columns would hide: refusals of borderline prompts alone, and facts by what fine-tuning has seen."""
    lines = []
    refusals = [(c["name"], read.figure(c, "false_refusal_borderline")) for c in trained]
    if any(found for _, found in refusals):
        listed = ", ".join(f"{name.replace('_', ' ')} {read.shown(found)}" for name, found in refusals if found)
        lines.append(Text(f"Refusals of borderline prompts alone: {listed}"))
    for checkpoint in trained:
        cells = read.facts_2x2(checkpoint) if checkpoint["name"] in ("sft", trained[-1]["name"]) else {}
        if cells:
            listed = ", ".join(
                f"{person}/{phrasing} {read.shown(found)}" for (person, phrasing), found in cells.items()
            )
            lines.append(Text(f"Facts at {checkpoint['name']}, person/phrasing: {listed}"))
    return list(lines)


def before_and_after(results: dict[str, Any]) -> Table:
    """The figures that a short run on a real model is asked for, each with its 95% interval."""
    shown = [c for c in read.trained(results["checkpoints"]) if c["name"] in ("base", "sft")] + read.trained(
        results["checkpoints"]
    )[-1:]
    drawn = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title="before and after", title_justify="left"
    )
    drawn.add_column("")
    for checkpoint in shown:
        drawn.add_column(checkpoint["name"].replace("_", " "), justify="right")
    for metric in (read.BY_NAME[name] for name in ("violation", "false_refusal", "gold_overlap", "mean_tokens")):
        found = [read.figure(checkpoint, metric.name) for checkpoint in shown]
        drawn.add_row(
            metric.title, *(f"{read.shown(one)} [{read.interval(one)}]" if one else read.DASH for one in found)
        )
    return drawn


def print_samples(run_dir: Path, n: int = 20) -> None:
    """Print n held-out prompts with the answers before (SFT; a fetched base, too) and after (the last version)."""
    run_dir = Path(run_dir)
    path = run_dir / "samples.json"
    if not path.exists():
        raise ValueError(f"{path}: no such file; evaluation writes it beside results.json")
    results = read.read_results(run_dir)
    order = [checkpoint["name"] for checkpoint in read.trained(results["checkpoints"])]
    first = read.before(results)
    shown = list(dict.fromkeys(([first["name"]] if first else []) + ["sft", *order[-1:]]))
    rows = [row for found in chosen(read_json(path)["rows"], n, order).values() for row in found]
    for i, row in enumerate(rows, start=1):
        show(_sample(i, row, shown))


def _sample(i: int, row: dict[str, Any], names: list[str]) -> RenderableType:
    labels = row.get("labels") or {}
    grid = Table.grid(padding=(0, 2))
    for turn in row["messages"]:
        grid.add_row(Text(turn["role"], style="dim"), Text(turn["content"]))
    for name in (name for name in names if name in row["answers"]):
        answer = Text(row["answers"][name].strip() or "(empty)")
        if labels.get(name):
            answer.append(f"  [{labels[name]}]", style=TONES[tone(labels[name])])
        grid.add_row(Text(name, style="bold"), answer)
    head = Text(f"{i}. {str(row.get('task', '')).replace('_', ' ')}", style="bold")
    return Padding(Group(head, grid), (0, 0, 1, 0))
