"""The plots of a version's page: rewards against K (fig. 7), the temperature sweep (fig. 8), calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from ayni.report.figures import Palette, bars, legend, percent_axis, points

Row = dict[str, Any]
NAMES = {"max": "best of K", "median": "median of K"}


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


def draw_temperatures(
    axes: Axes, colours: Palette, points_found: Sequence[Row], candidates: Sequence[Row], chosen: float | None
) -> None:
    """The sweep of the sampling temperature (fig. 8): the best reward of each k, and the best that ended, which decides."""
    ks = sorted({row.get("k") or 0 for row in points_found})
    for i, k in enumerate(ks):
        rows = sorted((r for r in points_found if (r.get("k") or 0) == k), key=lambda r: r["temperature"])
        xs, ys = points(rows, "max", "temperature")
        axes.plot(xs, ys, "o-", color=colours.colour(i), label=f"best of {k}" if k else "best", markersize=5)
    decide = [
        (row["temperature"], row["best"]) for row in candidates if (row.get("best") or {}).get("value") is not None
    ]
    if decide:
        xs, ys = [t for t, _ in decide], [best["value"] for _, best in decide]
        axes.plot(xs, ys, "s", color=colours.ink, label="best that ended", markersize=4.5)
        for temperature, best in decide:
            around = bars(best["value"], best.get("low"), best.get("high"))
            axes.errorbar(temperature, best["value"], yerr=around, color=colours.ink, elinewidth=0.9)
    if chosen is not None:
        axes.axvline(chosen, color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("Reward against sampling temperature" + ("" if chosen is None else f" (chosen: {chosen:g})"))
    axes.margins(x=0.06, y=0.15)
    legend(axes, colours, ncols=3)


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
    axes.set_xlabel("probability that the first answer is preferred")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend(axes, colours)


def draw_ratings(axes: Axes, colours: Palette, models: Sequence[tuple[str, list[Row]]]) -> None:
    """Mean score of the answers that people gave each grade, with its interval (fig. 29)."""
    for i, (name, rows) in enumerate(models):
        xs, ys = points(rows, "value", "rating")
        axes.plot(xs, ys, "o-", color=colours.colour(i), label=name, markersize=5)
        for row in rows:
            if row.get("value") is not None:
                around = bars(row["value"], row.get("low"), row.get("high"))
                axes.errorbar(row["rating"], row["value"], yerr=around, color=colours.colour(i), elinewidth=1)
    axes.set_title("Mean score by people's rating")
    axes.set_xlabel("median rating of the answer")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.06, y=0.12)
    legend(axes, colours)
