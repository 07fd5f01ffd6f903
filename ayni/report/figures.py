"""The plots. Each `draw_*` fills given axes; `svg` turns a figure into inline SVG that follows the page's colours.

Colours come as a `Palette`. The page's palette holds placeholder hex values which `svg` replaces by CSS variables, so
that one picture serves light and dark; the README picture's palette holds real colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from ayni.report.results import figure, kind_of
from ayni.telemetry import short

Row = dict[str, Any]


@dataclass(frozen=True)
class Palette:
    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]

    def colour(self, i: int) -> str:
        return self.series[i % len(self.series)]


SERIES = 6
CSS_NAMES = {f"#0a0a{i:02x}": name for i, name in enumerate(("ink", "muted", "grid", "paper"), start=1)}
CSS_NAMES |= {f"#0a0b{i:02x}": f"s{i}" for i in range(1, SERIES + 1)}
_HEX = {name: code for code, name in CSS_NAMES.items()}
PAGE = Palette(
    _HEX["ink"], _HEX["muted"], _HEX["grid"], _HEX["paper"], tuple(_HEX[f"s{i}"] for i in range(1, SERIES + 1))
)
PRINT = Palette(
    ink="#1c2024", muted="#69707a", grid="#e2e2de", paper="#ffffff",
    series=("#2f6aa8", "#b8632a", "#2f8463", "#84549e", "#94780f", "#5a6672"),
)  # fmt: skip

STYLE: Any = {
    "font.size": 10.5, "font.family": "sans-serif", "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 10.0, "lines.linewidth": 1.7, "lines.solid_capstyle": "round", "svg.fonttype": "none",
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.axisbelow": True,
    "text.parse_math": False,
}  # fmt: skip


def svg(name: str, draw: Callable[[Axes, Palette], None], size: tuple[float, float] = (4.9, 3.2)) -> str:
    """Inline SVG of one panel: no prolog, no metadata, ids prefixed by `name`, the same bytes for the same figures."""
    with mpl.rc_context({**STYLE, "axes.titlecolor": PAGE.ink, "svg.hashsalt": f"ayni-{name}"}):
        fig = Figure(figsize=size, layout="constrained")
        axes = fig.add_subplot()
        dress(axes, PAGE)
        draw(axes, PAGE)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        fig.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*pt" height="[^"]*pt"', r"<svg \1", text, count=1)
    text = re.sub(r'^<svg ([^>]*?)height="[^"]*pt" ([^>]*?)width="[^"]*pt"', r"<svg \1\2", text, count=1)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"#0a0[ab][0-9a-f]{2}", lambda found: f"var(--{CSS_NAMES[found.group()]})", text)


def dress(axes: Axes, colours: Palette) -> None:
    axes.set_facecolor("none")
    axes.grid(True, color=colours.grid, linewidth=0.8)
    for spine in axes.spines.values():
        spine.set_color(colours.grid)
    axes.tick_params(colors=colours.muted, labelcolor=colours.muted, labelsize=9.5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colours.muted)
        label.set_fontsize(9.5)


def percent_axis(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}%"))


def points(rows: Sequence[Row], key: str, x: str = "step") -> tuple[list[float], list[float]]:
    """The rows that have both `x` and a finite `key`."""
    found = [(row[x], row[key]) for row in rows if row.get(x) is not None and row.get(key) is not None]
    return [float(a) for a, _ in found], [float(b) for _, b in found]


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Mean over the `span` rows around each, fewer at the ends."""
    half = span // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def by_tokens(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """(rows with "at", axis label): tokens processed at that step where the log counts them, else the step itself."""
    tokens = {row["step"]: row["tokens"] for row in rows if row.get("tokens") is not None}
    if not tokens:
        return [{**row, "at": row["step"]} for row in rows], "step"
    return [{**row, "at": tokens.get(row["step"])} for row in rows], "tokens"


def draw_loss(axes: Axes, colours: Palette, rows: Sequence[Row], title: str, colour: int = 0) -> None:
    """Training loss: every row faint, their moving average strong."""
    placed, label = by_tokens(rows)
    xs, ys = points(placed, "loss", "at")
    many = len(ys) > 60
    axes.plot(xs, ys, color=colours.colour(colour), alpha=0.3 if many else 1.0, linewidth=0.8 if many else 1.7)
    if many:
        axes.plot(xs, smooth(ys, len(ys) // 40), color=colours.colour(colour))
    axes.set_title(title)
    amount_axis(axes, label)


def draw_perplexity(axes: Axes, colours: Palette, rows: Sequence[Row]) -> None:
    """Held-out perplexity per source, on a logarithmic axis, each line named at its end."""
    placed, label = by_tokens(rows)
    measured = [row for row in placed if row.get("perplexity")]
    sources = sorted({source for row in measured for source in row["perplexity"]})
    ends = []
    for i, source in enumerate(sources):
        xs, ys = points([{"at": row["at"], "y": row["perplexity"].get(source)} for row in measured], "y", "at")
        if ys:
            axes.plot(xs, ys, color=colours.colour(i), marker="o" if len(xs) < 12 else None, markersize=3)
            ends.append((ys[-1], f"{source} {short(round(ys[-1], 2))}", colours.colour(i)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: short(y)))
    axes.set_title("Held-out perplexity by source")
    amount_axis(axes, label)
    name_ends(axes, ends)


def amount_axis(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.02)


def name_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name right of its end, moved apart where two would overlap."""
    to_share = lambda y: axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]  # noqa: E731
    axes.autoscale_view()
    placed = sorted((to_share(y), text, colour) for y, text, colour in ends)
    heights: list[float] = []
    for at, _, _ in placed:
        heights.append(max(at, heights[-1] + 0.075) if heights else at)
    overflow = max(0.0, heights[-1] - 1.0) if heights else 0.0
    for height, (_, text, colour) in zip(heights, placed):
        axes.text(1.02, height - overflow, text, color=colour, transform=axes.transAxes, fontsize=9.5, va="center")


def draw_versions(axes: Axes, colours: Palette, checkpoints: Sequence[Row]) -> None:
    """Fig. 11: helpfulness against harmlessness per version, with 95% intervals both ways."""
    shown = [c for c in checkpoints if figure(c, "helpful_win_vs_sft") and figure(c, "violation")]
    line: list[tuple[float, float]] = []
    labels: list[tuple[float, float, str, str, bool]] = []
    segments: list[tuple[float, float, float, float]] = []
    for checkpoint in shown:
        kind, name = kind_of(checkpoint), checkpoint["name"].replace("_", " ")
        win, harm = checkpoint["metrics"]["helpful_win_vs_sft"], checkpoint["metrics"]["violation"]
        x, y = win["value"], 1 - harm["value"]
        main = kind == "trained" and name != "base"
        colour = colours.colour(len(line)) if main else colours.muted
        if main:
            line.append((x, y))
        horizontal = bars(x, win.get("low"), win.get("high"))
        vertical = bars(y, *((1 - harm[end]) if harm.get(end) is not None else None for end in ("high", "low")))
        axes.errorbar(
            x, y, xerr=horizontal, yerr=vertical, color=colour, elinewidth=1.3 if main else 0.8, zorder=3,
            marker="o" if kind == "trained" else "D" if kind == "control" else "s", markersize=7 if main else 5,
            markerfacecolor=colour if main else colours.paper, markeredgecolor=colour,
        )  # fmt: skip
        labels.append((x, y, name, colour, main))
        across, up = horizontal or [[0.0], [0.0]], vertical or [[0.0], [0.0]]
        segments += [(x - across[0][0], y, x + across[1][0], y), (x, y - up[0][0], x, y + up[1][0])]
    axes.plot(*zip(*line), color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
    axes.axvline(0.5, color=colours.muted, linewidth=0.8)
    axes.set_xlabel("helpful win share against SFT  (50%: no difference)")
    axes.set_ylabel("adversarial prompts without violation")
    axes.margins(x=0.28, y=0.12)  # room for the names
    for axis in (axes.xaxis, axes.yaxis):
        percent_axis(axis)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1])
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
    place_labels(axes, labels, segments)


def bars(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    if low is None or high is None:
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str, str, bool]],
    segments: Sequence[tuple[float, float, float, float]],
) -> None:
    """Name points (x, y, text, colour, strong) at the freest of ten places: clear of points, names and interval bars."""
    canvas = FigureCanvasAgg(axes.figure)  # type: ignore[arg-type]
    canvas.draw()
    spots = [tuple(axes.transData.transform((x, y)).tolist()) for x, y, *_ in labels]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in spots]
    for x0, y0, x1, y1 in segments:
        (left, low), (right, high) = axes.transData.transform([(x0, y0), (x1, y1)])
        taken.append(Bbox.from_extents(left - 1, low - 1, right + 1, high + 1))
    frame = axes.get_window_extent()
    offsets = [(9, 8), (-9, 8), (9, -8), (-9, -8), (0, 12), (0, -13), (9, 18), (-9, 18), (9, -18), (-9, -18)]
    for x, y, text, colour, strong in sorted(labels, key=lambda label: not label[4]):
        best: tuple[float, Any] | None = None
        for dx, dy in offsets:
            note = axes.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", ha="left" if dx > 0 else "right" if dx < 0 else "center", va="center",
                color=colour, fontsize=10.5 if strong else 9, fontweight="bold" if strong else "normal", zorder=4,
            )  # fmt: skip
            box = note.get_window_extent(canvas.get_renderer())
            cost = sum(_overlap(box, other) for other in taken) + 2 * _outside(box, frame)
            own, *others = sorted(spots, key=lambda spot: _distance(box, spot))
            if own != tuple(axes.transData.transform((x, y)).tolist()) or any(
                _distance(box, other) < 1.5 * _distance(box, own) for other in others
            ):
                cost += box.width * box.height  # it would seem to name another point
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, note)
            else:
                note.remove()
        assert best is not None
        taken.append(best[1].get_window_extent(canvas.get_renderer()))


def _overlap(a: Bbox, b: Bbox) -> float:
    wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return wide * high if wide > 0 and high > 0 else 0.0


def _distance(box: Bbox, spot: Sequence[float]) -> float:
    dx = max(box.x0 - spot[0], 0.0, spot[0] - box.x1)
    dy = max(box.y0 - spot[1], 0.0, spot[1] - box.y1)
    return (dx * dx + dy * dy) ** 0.5


def _outside(box: Bbox, frame: Bbox) -> float:
    return box.width * box.height - _overlap(box, frame)


STRENGTHS = ("significantly", "better", "slightly", "negligibly")


def strengths(models: Sequence[Row]) -> list[str]:
    """The strengths that the models' accuracies name, from the clearest preferences to the faintest."""
    present = {row["strength"] for model in models for row in model.get("accuracy_by_strength") or []}
    return sorted(present, key=lambda name: next((i for i, s in enumerate(STRENGTHS) if str(name).startswith(s)), 9))


def draw_by_strength(axes: Axes, colours: Palette, models: Sequence[Row]) -> None:
    """Accuracy of each reward model on held-out pairs, from the clearest preferences to the faintest."""
    order = strengths(models)
    for i, model in enumerate(models):
        found = {row["strength"]: row for row in model.get("accuracy_by_strength", []) if row.get("value") is not None}
        at = [(j + (i - (len(models) - 1) / 2) * 0.09, found[name]) for j, name in enumerate(order) if name in found]
        colour = colours.colour(i)
        axes.plot(
            [x for x, _ in at], [row["value"] for _, row in at], "o-", color=colour, label=model["name"], markersize=5
        )
        for x, row in at:
            axes.errorbar(x, row["value"], yerr=bars(row["value"], row.get("low"), row.get("high")), color=colour, elinewidth=1)  # fmt: skip
    axes.axhline(0.5, color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xticks(range(len(order)), [str(name).removesuffix(" or unsure").removesuffix(" better") for name in order])
    axes.set_title("Pairs ranked as the annotator did, by strength")
    percent_axis(axes.yaxis)
    axes.margins(y=0.15)
    legend(axes, colours)


def draw_by_kind(axes: Axes, colours: Palette, models: Sequence[Row]) -> None:
    """Accuracy of each reward model on planted errors, one row per kind of error."""
    kinds = list(dict.fromkeys(row["kind"] for model in models for row in model.get("accuracy_by_kind", [])))
    for i, model in enumerate(models):
        found = {row["kind"]: row["value"] for row in model.get("accuracy_by_kind", []) if row.get("value") is not None}
        at = [(found[kind], j + (i - (len(models) - 1) / 2) * 0.14) for j, kind in enumerate(kinds) if kind in found]
        axes.plot(
            [x for x, _ in at], [y for _, y in at], "o", color=colours.colour(i), label=model["name"], markersize=5.5
        )
    axes.axvline(0.5, color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(kinds)), [str(kind).replace("_", " ") for kind in kinds])
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_title("Pairs ranked right, by kind of error")
    axes.grid(False, axis="y")
    percent_axis(axes.xaxis)
    legend(axes, colours)


def legend(axes: Axes, colours: Palette, ncols: int = 2) -> None:
    drawn = axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=ncols, frameon=False, fontsize=9.5, handlelength=1.2,
        columnspacing=1.4, borderaxespad=0.0,
    )  # fmt: skip
    for text in drawn.get_texts():
        text.set_color(colours.ink)


def draw_curves(axes: Axes, colours: Palette, rows: Sequence[Row], title: str, keys: dict[str, str]) -> None:
    """Several figures of one log over its steps. `keys`: name in the log -> name in the legend."""
    for i, (key, label) in enumerate(keys.items()):
        xs, ys = points(rows, key)
        if xs:
            sparse = len(xs) < len(rows) / 2
            axes.plot(xs, ys, color=colours.colour(i), label=label, marker="o" if sparse else None, markersize=4)
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.03)
    if len(keys) > 1:
        legend(axes, colours, ncols=4)


def draw_ceiling(axes: Axes, colours: Palette, found: Sequence[Row]) -> None:
    """Best of K by ground truth, K on a logarithmic axis."""
    ks, values = [point["k"] for point in found], [point["value"] for point in found]
    axes.plot(ks, values, "o-", color=colours.colour(0), markersize=5)
    for point in found:
        axes.errorbar(point["k"], point["value"], yerr=bars(point["value"], point.get("low"), point.get("high")), color=colours.colour(0), elinewidth=1)  # fmt: skip
        axes.annotate(f"{100 * point['value']:.1f}", (point["k"], point["value"]), (0, 8), textcoords="offset points", ha="center", color=colours.ink, fontsize=9.5)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("answers sampled per prompt (K)")
    axes.set_title("Best of K by ground truth")
    percent_axis(axes.yaxis)
    axes.margins(x=0.08, y=0.25)
