"""The plots of a version's page: rewards against K (fig. 7), the temperature sweep (fig. 8), calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from ayni.report.figures import Palette, bars, legend, percent_axis, points

Row = dict[str, Any]
NAMES = {"max": "best of K", "median": "median of K", "mean": "mean"}


def draw_rewards_by_k(axes: Axes, colours: Palette, rows: Sequence[Row]) -> None:
    """Mean over prompts of the best and the median reward among the first K answers, K on a logarithmic axis."""
    for i, key in enumerate(("max", "median")):
        ks, rewards = points(rows, key, "k")
        axes.plot(ks, rewards, "o-", color=colours.colour(i), label=NAMES[key], markersize=5)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["k"] for row in rows], [str(row["k"]) for row in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("Reward against answers per prompt (K)")
    axes.margins(x=0.08, y=0.15)
    legend(axes, colours)


def draw_temperatures(axes: Axes, colours: Palette, rows: Sequence[Row], keys: Sequence[str]) -> None:
    """The sweep of the sampling temperature: each figure of its rows against the temperature."""
    for i, key in enumerate(keys):
        xs, ys = points(sorted(rows, key=lambda row: row["temperature"]), key, "temperature")
        axes.plot(xs, ys, "o-", color=colours.colour(i), label=NAMES.get(key, key.replace("_", " ")), markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("Reward against sampling temperature")
    axes.margins(x=0.06, y=0.15)
    legend(axes, colours)


def draw_calibration(axes: Axes, colours: Palette, models: Sequence[tuple[str, list[Row]]]) -> None:
    """Share of pairs ranked as people did against the probability the model gave it; on the dashed line both agree."""
    axes.plot([0, 1], [0, 1], color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    for i, (name, bins) in enumerate(models):
        xs, ys = points(bins, "observed", "predicted")
        axes.plot(xs, ys, "o-", color=colours.colour(i), label=name, markersize=5)
        for row in bins:
            if row.get("observed") is not None and row.get("predicted") is not None:
                around = bars(row["observed"], row.get("low"), row.get("high"))
                axes.errorbar(row["predicted"], row["observed"], yerr=around, color=colours.colour(i), elinewidth=1)
    lowest = min(
        (row["predicted"] for _, bins in models for row in bins if row.get("predicted") is not None), default=0
    )
    axes.set_xlim(0.48 if lowest >= 0.5 else -0.02, 1.02)
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("Calibration: observed against predicted")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend(axes, colours)
