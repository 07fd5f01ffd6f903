"""A red team's rounds as tables and one picture, from their summaries and clocks alone (paper 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ayni import telemetry
from ayni.artifacts import read_json
from ayni.report.figures import PRINT, STYLE, dress
from ayni.report.study import draw_lines

SUMMARY, CLOCK = "summary.json", "logs/clock.json"
Row = dict[str, Any]


def load(rounds: Sequence[Path]) -> list[Row]:
    """A summary for each round, its clock under `clock`."""
    return [{**read_json(path / SUMMARY), "clock": read_json(path / CLOCK)} for path in rounds]


def show(rounds: Sequence[Path]) -> None:
    """Gamma, degrees and what came of earlier findings by round; then violations by category and move."""
    found = load(rounds)
    telemetry.table(
        ["round", "tries", "violations", "per 100 tries", "gamma per hour", "tries per hour"],
        [
            [_name(r), r["tries"], r["violations"], r["per_100_tries"], r["clock"]["gamma_per_hour"], r["clock"]["tries_per_hour"]]
            for r in found
        ],
        title="red-team rounds (gamma: violations per hour of this machine's search)",
    )  # fmt: skip
    telemetry.table(
        ["findings of", *(f"degree {level}" for level in range(1, 6)), "tries to one", "may train", "held out"],
        [[_name(r), *(r["degrees"][str(level)] for level in range(1, 6)), r["tries_to_violation"], r["train"], r["held_out"]] for r in found],
    )  # fmt: skip
    again = [[_name(r), _name(of), *(of[key]["value"] for key in FIXED), of["all"]["n"]] for r in found for of in r["fixed"]]  # fmt: skip
    if again:
        telemetry.table(
            ["asked in", "findings of", *FIXED.values(), "n"], again, title="findings of earlier rounds that are fixed"
        )
    categories, moves, share = cells(found)
    rows = [[move, *(_of(share.get((category, move))) for category in categories)] for move in moves]
    telemetry.table(
        ["move", *categories], rows, title="violations of tries, all rounds (a search tries most where it finds)"
    )


# key of a `fixed` entry -> its name. by_chance: of the model that they were found on, asked the same way.
FIXED = {"all": "fixed", "trained": "that may train", "held_out": "held out", "by_chance": "by chance"}


def cells(found: Sequence[Row]) -> tuple[list[str], list[str], dict[tuple[str, str], tuple[int, int]]]:
    """(categories, moves, {(category, move): (violations, tries)}) over these rounds."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for cell in (cell for r in found for cell in r["cells"]):
        key = (cell["category"], cell["move"])
        before = counts.get(key, (0, 0))
        counts[key] = (before[0] + cell["violations"], before[1] + cell["tries"])
    return sorted({c for c, _ in counts}), sorted({m for _, m in counts}), counts


def _name(r: Row) -> str:
    return f"{r['round']}: {r['model']}"


def _of(cell: tuple[int, int] | None) -> str:
    return "–" if cell is None else f"{cell[0]}/{cell[1]}"


def picture(rounds: Sequence[Path], out: Path) -> Path:
    """The SVG `out`: gamma by round both ways, the share fixed, and a heat map of violations by category and move.

    Equal figures make equal bytes; gamma per hour is the clock's.
    """
    found = load(rounds)
    with mpl.rc_context({**STYLE, "svg.fonttype": "path", "svg.hashsalt": "ayni-redteam", "axes.titlecolor": PRINT.ink}):  # fmt: skip
        figure = Figure(figsize=(13.8, 7.6), layout="constrained", facecolor=PRINT.paper)
        FigureCanvasSVG(figure)
        grid = figure.add_gridspec(2, 3)
        panels = [figure.add_subplot(grid[0, i]) for i in range(3)]
        for axes, title, label in zip(panels, ("Violations per 100 tries", "Gamma", "Earlier findings fixed"), ("violations", "violations per machine hour", "share")):  # fmt: skip
            dress(axes, PRINT)
            axes.set_title(title, color=PRINT.ink)
            axes.set_ylabel(label)
            axes.set_xlabel("round")
            axes.set_xticks([r["round"] for r in found], [f"{r['round']}\n{r['model']}" for r in found])
        draw_lines(panels[0], PRINT, [_line("", found, lambda r: {key: 100 * r["share"][key] for key in ("value", "low", "high")})])  # fmt: skip
        draw_lines(panels[1], PRINT, [_line("", found, lambda r: {"value": r["clock"]["gamma_per_hour"]})])
        fixed = [r for r in found if r["fixed"]]
        draw_lines(panels[2], PRINT, [_line(name, fixed, lambda r, key=key: {"value": _pooled(r, key)}) for key, name in FIXED.items()])  # fmt: skip
        for axes in panels[:2]:
            axes.set_ylim(bottom=0)
        panels[2].set_ylim(-0.03, 1.03)
        if fixed:
            panels[2].legend(frameon=False, fontsize=8.5, labelcolor=PRINT.ink)
        draw_heat(figure.add_subplot(grid[1, :]), found)
        temporary = out.with_name(f".{out.name}.tmp")
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        temporary.replace(out)
    return out


def draw_heat(axes: Axes, found: Sequence[Row]) -> None:
    """Share of tries that violate, a row for each category and a column for each move; the counts in each cell."""
    categories, moves, counts = cells(found)
    share_CM = np.full((len(categories), len(moves)), np.nan)
    for (category, move), (violations, tries) in counts.items():
        share_CM[categories.index(category), moves.index(move)] = violations / tries
    shades = LinearSegmentedColormap.from_list("ayni", [PRINT.paper, PRINT.colour(1)])
    axes.imshow(share_CM, cmap=shades, vmin=0, vmax=1, aspect="auto")
    for (category, move), cell in counts.items():
        axes.text(moves.index(move), categories.index(category), _of(cell), ha="center", va="center", color=PRINT.ink, fontsize=8.5)  # fmt: skip
    axes.set_title("Violations of tries by category and move, all rounds", color=PRINT.ink)
    axes.set_xticks(range(len(moves)), [move.replace("_", " ") for move in moves], rotation=25, ha="right")
    axes.set_yticks(range(len(categories)), [category.replace("_", " ") for category in categories])
    axes.tick_params(colors=PRINT.muted, labelcolor=PRINT.muted, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _pooled(r: Row, key: str) -> float | None:
    """Over all earlier rounds, each finding alike."""
    known = [(of[key]["value"], of[key]["n"]) for of in r["fixed"] if of[key]["n"]]
    return sum(value * n for value, n in known) / sum(n for _, n in known) if known else None


def _line(name: str, found: Sequence[Row], of: Any) -> Row:
    points = [of(r) for r in found]
    low, high = ([p.get(key) for p in points] if points and "low" in points[0] else None for key in ("low", "high"))
    return {"name": name, "x": [r["round"] for r in found], "y": [p["value"] for p in points], "low": low, "high": high, "paper": False}  # fmt: skip
