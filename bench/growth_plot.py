"""The growth curves as one picture: speed above, memory below, the law dashed."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from bench.workload import Facts

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "ayni"  # equal figures give equal files

import matplotlib.pyplot as plt  # noqa: E402

OURS, LAW = "#1f5fa8", "#888888"
GIGA = 1e9


def draw(curves: list[Facts], path: Path) -> None:
    figure, axes = plt.subplots(2, len(curves), figsize=(4 * len(curves), 6.4), layout="constrained")
    for column, curve in enumerate(curves):
        xs = [point["x"] for point in curve["points"]]
        draw_speed(axes[0][column], xs, curve)
        draw_memory(axes[1][column], xs, curve)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)
    temporary.replace(path)


def draw_speed(axis: plt.Axes, xs: list[int], curve: Facts) -> None:
    law = [point["speed_law"] for point in curve["points"]]
    scaled = [speed * curve["efficiency"] for speed in law]
    axis.loglog(xs, law, color=LAW, linestyle=":", label="roofline")
    axis.loglog(xs, scaled, color=LAW, linestyle="--", label=f"law, at {curve['efficiency']:.0%} of the roofline")
    axis.loglog(xs, [point["speed"] for point in curve["points"]], color=OURS, marker="o", label="measured")
    axis.set(title=curve["name"], ylabel="tokens/s", xlabel=curve["x_label"])
    axis.legend(fontsize=8)


def draw_memory(axis: plt.Axes, xs: list[int], curve: Facts) -> None:
    axis.loglog(xs, [point["memory_law"] / GIGA for point in curve["points"]], color=LAW, linestyle="--", label="law")
    axis.loglog(xs, [point["memory"] / GIGA for point in curve["points"]], color=OURS, marker="o", label="measured")
    axis.set(ylabel="peak memory, GB", xlabel=curve["x_label"])
    axis.legend(fontsize=8)
