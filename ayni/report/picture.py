"""The README's picture: versions against each other, and the figures behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ayni.report import results as read
from ayni.report.figures import PRINT, STYLE, bars, draw_versions, dress

BARS = ("facts_right", "truthful", "gold_overlap", "correct_win_vs_sft", "violation", "false_refusal")


def overview_png(run_dir: Path, path: Path) -> Path:
    """Draw run_dir's results overview into `path` (PNG): fig. 11 on the left, shares with intervals on the right."""
    checkpoints = read.read_results(Path(run_dir))["checkpoints"]
    metrics = [m for m in read.columns(checkpoints) if m.name in BARS]
    with mpl.rc_context({**STYLE, "axes.titlecolor": PRINT.ink}):
        fig = Figure(figsize=(11.5, 4.6), dpi=160, facecolor=PRINT.paper, layout="constrained")
        grid = fig.add_gridspec(1, 2, width_ratios=(1.15, 1), wspace=0.04)
        left, right = fig.add_subplot(grid[0]), fig.add_subplot(grid[1])
        dress(left, PRINT)
        dress(right, PRINT)
        draw_versions(left, PRINT, checkpoints)
        left.set_title("Helpful and harmless, version by version")
        _draw_bars(right, checkpoints, metrics)
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, format="png", metadata={"Software": None})
    return path


def _draw_bars(axes: Axes, checkpoints: list[dict[str, Any]], metrics: list[read.Metric]) -> None:
    """One block per metric, one bar per trained checkpoint, the figure at its end."""
    line = [c for c in read.trained(checkpoints) if c["name"] != "base"]
    height = 0.8 / max(1, len(line))
    for i, metric in enumerate(metrics):
        for j, checkpoint in enumerate(line):
            found = read.figure(checkpoint, metric.name)
            if found is None:
                continue
            at = i + (j - (len(line) - 1) / 2) * height
            colour = PRINT.colour(j)
            axes.barh(at, found["value"], height * 0.86, color=colour, label=checkpoint["name"] if i == 0 else None)
            axes.errorbar(found["value"], at, xerr=bars(found["value"], found.get("low"), found.get("high")), color=PRINT.ink, elinewidth=0.8)  # fmt: skip
            end = max(found["value"], found.get("high") or 0.0)
            axes.text(end + 0.015, at, read.shown(found), va="center", fontsize=9, color=PRINT.ink)
    axes.set_yticks(range(len(metrics)), [f"{m.title.removesuffix(' %')}{'  ↓' if m.better == 'low' else ''}" for m in metrics])  # fmt: skip
    axes.tick_params(axis="y", labelcolor=PRINT.ink, labelsize=10)
    axes.set_ylim(len(metrics) - 0.45, -0.55)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
    axes.grid(False, axis="y")
    axes.set_title("Held-out shares, 95% intervals (↓ less is better)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.07), ncols=len(line), frameon=False, fontsize=9.5, handlelength=0.9)  # fmt: skip
