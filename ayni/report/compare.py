"""What `ayni compare` shows: its tables on the screen, and the same with bars and dialogues side by side on one page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ayni import telemetry
from ayni.artifacts import read_json, write_atomically
from ayni.report.figures import Palette, svg
from ayni.text.sources import read_jsonl

Row = dict[str, Any]
PAGE, RESULTS, COMPARISONS = "compare.html", "results.json", "comparisons.jsonl"
PAPER_AC2 = "the paper's raters: AC2 0.37 to 0.55 on helpfulness, 0.92 on safety"
GRADES = {3: "much better", 2: "better", 1: "slightly better", 0: "about the same"}
DASH = "–"


def show(out: Path) -> None:
    found = read_json(out / RESULTS)
    for table in tables(found):
        telemetry.table(table["head"], table["rows"], title=table["title"])
    telemetry.show(*remarks(found))


def tables(found: Row) -> list[Row]:
    """Title, head and rows of every table: shares in percent, as text."""
    mark = " (MARKED: shares with what labelled the training data)" if found["shared"] else ""
    head = ["", "win", "tie", "loss", "win rate [95%]", "at equal length [95%]", "longer", "n"]
    rows = []
    for pair in found["pairs"]:
        rows.append([f"{pair['a']} against {pair['b']}", *_cells(pair["all"])])
        rows += [[f"  {name}", *_cells(figures)] for name, figures in pair["groups"].items()]
    out = [
        {
            "title": f"Wins, ties and losses in percent, by {', '.join(found['places'])}{mark}",
            "head": head,
            "rows": rows,
        }
    ]
    if len(found["checkpoints"]) > 2:
        ranked = sorted(found["checkpoints"], key=lambda c: -(c["metrics"]["strength"]["value"] or 0.0))
        rows = [
            [c["name"], _number(c["metrics"]["strength"]), percent(c["metrics"]["win_rate"]), _plain(c["metrics"]["mean_tokens"])]
            for c in ranked
        ]  # fmt: skip
        out.append(
            {"title": f"Strengths (Bradley-Terry){mark}", "head": ["", "log strength [95%]", "win rate against all [95%]", "mean tokens"], "rows": rows}
        )  # fmt: skip
    rows = [
        [
            rater,
            f"{of['asked']:,}",
            f"{of['unparsable']:,}",
            *(_share(of[key]) for key in ("steady", "first", "second")),
        ]
        for rater, of in found["places"].items()
    ]
    head = ["judge", "judgements", "no verdict", "same in both orders", "the first is better", "the second is better"]
    out.append({"title": "What the place did, percent of pairs asked in both orders", "head": head, "rows": rows})
    if found["agreement"]:
        rows = [[name, f"{of['ac1']:.3f}", f"{of['ac2']:.3f}", f"{of['pairs']:,}", of["raters"]] for name, of in found["agreement"].items()]  # fmt: skip
        out.append(
            {"title": "Agreement of the raters (Gwet)", "head": ["prompts", "AC1, win/tie/loss", "AC2, seven points", "pairs", "raters"], "rows": rows}
        )  # fmt: skip
    return out


def remarks(found: Row) -> list[str]:
    """What must be known to read the tables."""
    out = [f"shared with the training labels: {reason}" for reason in found["shared"]]
    out += [f"not on record: {reason}" for reason in found["unknown"]]
    lost = sum(pair["all"]["no_verdict"] for pair in found["pairs"])
    if lost:
        out.append(f"{lost:,} pairs have no verdict (not judged, or no reply that is one) and count nowhere")
    if found["equal"]:
        out.append(f"{found['equal']:,} pairs of equal answers are ties that nobody was asked about")
    one_sided = [p for p in found["pairs"] if p["all"]["longer"]["n"] and p["all"]["longer"]["value"] in (0.0, 1.0)]
    out += [f"{p['a']} against {p['b']}: one side is always the longer, so quality and length cannot be told apart" for p in one_sided]  # fmt: skip
    if found["agreement"]:
        out.append(PAPER_AC2)
    return out


def _cells(figures: Row) -> list[str]:
    shares = [_share(figures[outcome]) for outcome in ("win", "tie", "loss")]
    longer = _share(figures["longer"])
    return [*shares, percent(figures["win_rate"]), percent(figures["at_equal_length"]), longer, f"{figures['win_rate']['n']:,}"]  # fmt: skip


def percent(figure: Row) -> str:
    """61.3 [58.0, 64.6]"""
    if figure["value"] is None:
        return DASH
    return f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def _share(figure: Row) -> str:
    return DASH if figure["value"] is None else f"{100 * figure['value']:.1f}"


def _number(figure: Row) -> str:
    return DASH if figure["value"] is None else f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _plain(figure: Row) -> str:
    return DASH if figure["value"] is None else f"{figure['value']:.1f}"


# ---- the page --------------------------------------------------------------------------------------------------------


def write_page(out: Path) -> Path:
    """OUT/compare.html: one file that opens from disk. Every text passes autoescape."""
    found = read_json(out / RESULTS)
    rows = read_jsonl(out / COMPARISONS)
    environment = Environment(
        loader=PackageLoader("ayni.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    names = [checkpoint["name"] for checkpoint in found["checkpoints"]]
    bars = bar_rows(found)
    page = environment.get_template("compare.html.j2").render(
        name=" against ".join(names) if len(names) == 2 else f"{len(names)} models compared",
        found=found,
        remarks=remarks(found),
        tables=tables(found),
        plot=Markup(svg("outcomes", partial(draw_outcomes, rows=bars), (8.4, 1.1 + 0.42 * len(bars)))),
        samples=[side_by_side(row) for row in chosen(rows, found["settings"]["samples"])],
    )
    path = out / PAGE
    write_atomically(path, page)
    return path


def bar_rows(found: Row) -> list[tuple[str, Row]]:
    out = []
    for pair in found["pairs"]:
        out.append((f"{pair['a']} against {pair['b']}", pair["all"]))
        out += [(name, figures) for name, figures in pair["groups"].items()]
    return out


def draw_outcomes(axes: Axes, colours: Palette, rows: list[tuple[str, Row]]) -> None:
    """Fig. 12: a bar of win, tie and loss for each comparison, the win rate with its interval above it."""
    shades = (colours.colour(2), colours.grid, colours.colour(1))
    for place, (_, figures) in enumerate(reversed(rows)):
        if figures["win"]["value"] is None:
            continue
        left = 0.0
        for outcome, shade in zip(("win", "tie", "loss"), shades):
            width = figures[outcome]["value"]
            axes.barh(place, width, 0.62, left, color=shade)
            if width > 0.06:
                ink = colours.ink if outcome == "tie" else colours.paper
                axes.text(
                    left + width / 2, place, f"{100 * width:.0f}", ha="center", va="center", color=ink, fontsize=9
                )
            left += width
        rate = figures["win_rate"]
        axes.plot([rate["low"], rate["high"]], [place + 0.38] * 2, color=colours.ink, linewidth=1.4)
        axes.plot([rate["value"]], [place + 0.38], marker="o", markersize=3.5, color=colours.ink)
    axes.axvline(0.5, color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f}%"))
    axes.grid(False, axis="y")
    axes.set_title("Win, tie, loss of the first; dot: win rate with ties as half, 95%")


def chosen(rows: list[Row], n: int) -> list[Row]:
    """n rows in turn from the wins, losses, ties and verdictless of every pair, in the prompts' order."""
    piles: dict[tuple[str, str, int | None], list[Row]] = {}
    for row in rows:
        if not row["equal"]:
            piles.setdefault((row["a"], row["b"], row["grade"]), []).append(row)
    found: list[Row] = []
    depth = 0
    while len(found) < n and any(len(pile) > depth for pile in piles.values()):
        found += [pile[depth] for pile in piles.values() if len(pile) > depth]
        depth += 1
    order = {id(row): place for place, row in enumerate(rows)}
    return sorted(found[:n], key=lambda row: order[id(row)])


def side_by_side(row: Row) -> Row:
    """The prompt, both sides turn by turn, and what every rater said in words."""
    verdict = {1: f"{row['a']} is better", -1: f"{row['b']} is better", 0: "a tie", None: "no verdict"}[row["grade"]]
    sides = []
    for side in ("a", "b"):
        turns = []
        for number, reply in enumerate(row["answers"][side]):
            turns.append({"role": "assistant", "content": reply})
            if number < len(row["further"]):
                turns.append({"role": "user", "content": row["further"][number]})
        better = (row["grade"] or 0) * (1 if side == "a" else -1)
        sides.append({"name": row[side], "turns": turns, "tone": "good" if better > 0 else "bad" if better < 0 else ""})
    said = [{"rater": rater, "words": in_words(row, of), "replies": of.get("replies", [])} for rater, of in row["said"].items()]  # fmt: skip
    return {"id": row["id"], "kind": row["prompt_kind"], "messages": row["messages"], "sides": sides, "verdict": verdict, "said": said}  # fmt: skip


def in_words(row: Row, said: Row) -> str:
    """Of both orders, if there were two."""
    told = [_grade(row, grade) for grade in said["grades"]]
    if len(told) == 1:
        return told[0]
    if told[0] == told[1]:
        return f"{told[0]}, in both orders"
    return f"{told[0]} with {row['a']} first; {told[1]} with {row['b']} first"


def _grade(row: Row, grade: int | None) -> str:
    if grade is None:
        return "no verdict"
    return GRADES[0] if grade == 0 else f"{row['a'] if grade > 0 else row['b']} {GRADES[abs(grade)]}"
