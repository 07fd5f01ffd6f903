"""A study's figure and page, drawn from its `result.json` alone; and the index of all studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ayni.artifacts import read_json, write_atomically
from ayni.report.figures import PRINT, STYLE, Palette, dress
from ayni.telemetry import short

Result = dict[str, Any]
FEW = 8  # points of a logarithmic axis that are marked one by one


def write(results: Sequence[Path]) -> list[Path]:
    """figure.svg and README.md beside every result.json, and the index one folder up; returns the figures."""
    figures = []
    for path in results:
        result = read_json(path)
        figures.append(path.with_name("figure.svg"))
        draw(result, figures[-1])
        write_atomically(path.with_name("README.md"), page(result))
    for folder in {path.parent.parent for path in results}:
        write_atomically(folder / "README.md", index(folder))
    return figures


def draw(result: Result, out: Path) -> None:
    """One picture with all panels side by side; the same bytes for the same figures."""
    panels = result["panels"]
    with mpl.rc_context({**STYLE, "svg.fonttype": "path", "svg.hashsalt": f"ayni-{result['study']}", "axes.titlecolor": PRINT.ink}):  # fmt: skip
        figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained", facecolor=PRINT.paper)
        FigureCanvasSVG(figure)
        for number, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), number)
            dress(axes, PRINT)
            draw_panel(axes, PRINT, panel)
        temporary = out.with_name(f".{out.name}.tmp")
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        temporary.replace(out)


def draw_panel(axes: Axes, colours: Palette, panel: Result) -> None:
    """Lines with their interval as a band, or bars with their interval as a whisker."""
    axes.set_title(panel["title"], color=colours.ink)
    axes.set_xlabel(panel["x_label"])
    axes.set_ylabel(panel["y_label"])
    if panel["kind"] == "bars":
        draw_bars(axes, colours, panel["series"])
    else:
        draw_lines(axes, colours, panel["series"])
    if panel["log_x"]:
        axes.set_xscale("log")
        if len(points := sorted({x for line in panel["series"] for x in line["x"]})) <= FEW:
            axes.set_xticks(points, [short(x) for x in points])
            axes.minorticks_off()
    elif len(points := sorted({x for line in panel["series"] for x in line["x"]}, key=str)) <= FEW and all(
        map(_whole, points)
    ):
        axes.set_xticks(points)
    if panel["log_y"]:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda y, _: short(int(y) if y >= 1 else y))
    if len(panel["series"]) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=colours.ink)


def _whole(x: Any) -> bool:
    return isinstance(x, int)


def draw_bars(axes: Axes, colours: Palette, series: Sequence[Result]) -> None:
    groups = list(dict.fromkeys(str(x) for line in series for x in line["x"]))
    width = 0.8 / len(series)
    for i, line in enumerate(series):
        at = [groups.index(str(x)) + (i - (len(series) - 1) / 2) * width for x in line["x"]]
        heights = [float("nan") if y is None else y for y in line["y"]]
        axes.bar(at, heights, width * 0.92, color=colours.colour(i), alpha=0.55 if line["paper"] else 0.9, label=line["name"])  # fmt: skip
        if line["low"]:
            below = [0.0 if low is None else y - low for y, low in zip(heights, line["low"])]
            above = [0.0 if high is None else high - y for y, high in zip(heights, line["high"])]
            axes.errorbar(at, heights, [below, above], fmt="none", ecolor=colours.ink, elinewidth=0.9, capsize=2)
    axes.set_xticks(range(len(groups)), [name.replace(" ", "\n") if len(groups) < 7 else name for name in groups])
    axes.margins(y=0.35)  # above the bars, for the legend
    if len(groups) >= 7 or len(groups) * max(len(word) for name in groups for word in name.split()) > 70:
        axes.tick_params(axis="x", rotation=60)


def draw_lines(axes: Axes, colours: Palette, series: Sequence[Result]) -> None:
    for i, line in enumerate(series):
        ys = [float("nan") if y is None else y for y in line["y"]]
        style = "--" if line["paper"] else "-"
        axes.plot(line["x"], ys, style, color=colours.colour(i), marker="o", markersize=3.5, label=line["name"])
        if line["low"]:
            low, high = ([float("nan") if y is None else y for y in line[side]] for side in ("low", "high"))
            axes.fill_between(line["x"], low, high, color=colours.colour(i), alpha=0.15, linewidth=0)


def page(result: Result) -> str:
    """A study in Markdown: claim, verdict, figure, table, every effect with its interval."""
    note = "\n\n**A smoke run: its figures mean nothing.**" if result["scale"] == "smoke" else ""
    rows = [
        [e["name"], interval(e), short(e["above"]), e["n"], e["verdict"]] for e in result["effects"]
    ]  # fmt: skip
    parts = [
        f"# {result['study']}: {result['verdict']}{note}",
        f"**Claim.** {result['claim']}",
        f"**The paper.** {result['paper']}",
        f"**Here.** {result['method']} {result['seeds']} seeds; written by `ayni study {result['study']}`.",
        f"![{result['claim']}](figure.svg)",
        markdown(["effect", "ours [95% interval]", "must exceed", "n", "verdict"], rows),
        markdown(result["table"]["columns"], result["table"]["rows"]),
        *result["remarks"],
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def interval(effect: Result) -> str:
    """0.12 [0.05, 0.19], in the effect's unit."""
    return f"{short(effect['value'])} [{short(effect['low'])}, {short(effect['high'])}] {effect['unit']}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; a bar inside a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(short(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def index(folder: Path) -> str:
    """Every study that has a result: claim, figure, verdict."""
    results = [read_json(path) for path in sorted(folder.glob("*/result.json"))]
    rows = [
        [f"[{r['study']}]({r['study']}/README.md)", r["group"], r["claim"], interval({**r, "value": r["ours"]}), r["seeds"], r["verdict"]]
        for r in sorted(results, key=lambda r: (r["group"], r["study"]))
    ]  # fmt: skip
    head = (
        "# Studies\nThe paper's claims as controlled experiments on the embedded world: `ayni study NAME`, `ayni study --group GROUP`.\n"
        "Written by these commands alone, whatever the verdict. An interval draws seeds, and prompts inside each.\n\n"
    )
    return head + markdown(["study", "group", "claim", "headline [95% interval]", "seeds", "verdict"], rows) + "\n"


def show_rows(results: Sequence[Path]) -> list[list[Any]]:
    """Rows of the last screen: study, headline, verdict."""
    found = [read_json(path) for path in results]
    return [[r["study"], interval({**r, "value": r["ours"]}), r["n"], r["verdict"]] for r in found]
