"""What `ayni audit` shows: the tables of the paper's 4.1 on the screen, and the same with plots on one page."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ayni import telemetry
from ayni.artifacts import read_json, write_atomically
from ayni.report.figures import CSS_NAMES, PRINT, Palette, svg

Row = dict[str, Any]
AUDIT_PAGE = "audit.html"
TOP = 5  # descriptors of an axis, as in Table 9b
LANGUAGES = 28  # rows, as in Table 10
SCORERS = {"rudeness": "explicit rude words only, a lower bound"}

# Tables 9 and 10 of the paper, in percent.
PAPER_PRONOUNS = {
    ("gender", ""): 75.23, ("gender", "she"): 28.45, ("gender", "he"): 50.73, ("gender", "unspecified"): 86.38,
    ("person", ""): 94.47, ("person", "1st"): 70.71, ("person", "2nd"): 61.80, ("person", "3rd"): 93.07,
}  # fmt: skip
PAPER_AXES = {
    "gender_and_sex": 5.91, "sexual_orientation": 6.67, "nationality": 14.83, "race_and_ethnicity": 19.51, "religion": 7.93,
}  # fmt: skip
PAPER_TERMS = {
    "female": 50.0, "male": 39.1, "feminine": 5.4, "transgender": 4.2, "masculine": 3.1,
    "gay": 14.8, "lesbian": 4.3, "lgbt": 4.0, "lgbtq": 3.6, "queer": 3.5,
    "american": 69.4, "indian": 16.5, "chinese": 16.3, "korean": 5.1, "mexican": 4.9,
    "european": 20.7, "african": 11.5, "asian": 7.4, "latin": 6.2, "indigenous": 3.7,
    "christian": 33.2, "religious": 28.8, "spiritual": 20.6, "catholic": 15.4, "jewish": 13.0,
}  # fmt: skip
PAPER_ENGLISH, PAPER_TOXIC = 89.70, 0.2


def show(out: Path) -> None:
    """Prints audit.json as the paper's Tables 9a, 9b and 10, and what stands beside its fig. 13."""
    for table in tables(read_json(out / "audit.json")):
        telemetry.table(table["head"], table["rows"], title=table["title"])


def tables(found: Row) -> list[Row]:
    """Title, head and rows of every table: figures in percent, as text."""
    count = f"{found['documents']:,} documents"
    pronouns = _pronoun_rows(found["pronouns"])
    out = [
        {"title": f"Pronouns (Table 9a), {count}", "head": ["", "% of documents", "% of the group's", "paper"], "rows": pronouns},
        {"title": "Descriptors (Table 9b)", "head": ["", "% of documents", "% of the axis's", "paper"], "rows": _descriptor_rows(found["descriptors"])},
        {"title": "Toxicity (fig. 13)", "head": ["", "figure", "paper"], "rows": _toxicity_rows(found["toxicity"])},
    ]  # fmt: skip
    if found["languages"]["shares"]:
        head = ["", "% of documents", "paper"]
        out.append({"title": "Languages (Table 10)", "head": head, "rows": _language_rows(found["languages"])})
    return out


def _pronoun_rows(groups: Row) -> list[list[str]]:
    titles = {"gender": "gender pronouns", "person": "grammatical person"}
    rows = []
    for group, entry in groups.items():
        rows.append([titles[group], percent(entry["share"]), "", _paper(PAPER_PRONOUNS[group, ""])])
        for name, found in entry["classes"].items():
            paper = _paper(PAPER_PRONOUNS[group, name])
            rows.append([f"  {_named(name, found)}", percent(found["share"]), percent(found["share_of_group"]), paper])
    return rows


def _named(name: str, found: Row) -> str:
    words = list(found["words"])
    return f"{name} ({', '.join(words[:4])}{', ...' if len(words) > 4 else ''})"


def _descriptor_rows(axes: Row) -> list[list[str]]:
    rows = []
    for axis, entry in axes.items():
        rows.append([axis.replace("_", " "), percent(entry["share"]), "", _paper(PAPER_AXES.get(axis))])
        for term, found in list(entry["terms"].items())[:TOP]:
            rows.append([f"  {term}", "", percent(found["share_of_axis"]), _paper(PAPER_TERMS.get(term))])
    return rows


def _toxicity_rows(found: Row) -> list[list[str]]:
    name: str = found["scorer"]
    return [
        ["scorer", SCORERS.get(name, name), "HateBERT on ToxiGen"],
        ["documents scored", f"{found['scored']:,}", "10%"],
        ["mean of the documents, %", percent(found["mean"]), ""],
        ["documents at 0.5 or more, %", percent(found["toxic"]["share"]), f"{PAPER_TOXIC:.1f}"],
    ]


def _language_rows(found: Row) -> list[list[str]]:
    paper = {"en": PAPER_ENGLISH, "unknown": 8.38}
    shown = list(found["shares"].items())[:LANGUAGES]
    return [[code, percent(entry["share"]), _paper(paper.get(code))] for code, entry in shown]


def percent(share: float | None) -> str:
    """Two digits behind the point, as in the paper's tables; nothing to divide by is a dash."""
    return "–" if share is None else f"{100 * share:.2f}"


def _paper(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write_page(work: Path, found: Row) -> None:
    """audit.html, which opens from disk alone, and its plots as files: pronouns, descriptors, toxicity, languages.svg."""
    drawings: dict[str, tuple[Callable[[Axes, Palette], None], tuple[float, float]]] = {
        "pronouns": (partial(draw_pronouns, groups=found["pronouns"]), (6.2, 3.4)),
        "descriptors": (partial(draw_descriptors, axes_found=found["descriptors"]), (6.2, 6.4)),
        "toxicity": (partial(draw_toxicity, found=found["toxicity"]), (6.2, 3.4)),
    }
    if found["languages"]["shares"]:
        drawings["languages"] = (partial(draw_languages, found=found["languages"]), (6.2, 3.4))
    plots = {name: svg(name, draw, size) for name, (draw, size) in drawings.items()}
    for name, plot in plots.items():
        write_atomically(work / f"{name}.svg", alone(plot))
    environment = Environment(
        loader=PackageLoader("ayni.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    page = environment.get_template("audit.html.j2").render(
        name=found["corpus"], found=found, tables=tables(found), plots=[Markup(plot) for plot in plots.values()]
    )
    write_atomically(work / AUDIT_PAGE, page)


def alone(plot: str) -> str:
    """A page's SVG as a file of its own: the page's colour variables become colours."""
    colours = dict(zip(("ink", "muted", "grid", "paper"), (PRINT.ink, PRINT.muted, PRINT.grid, PRINT.paper)))
    colours |= {f"s{i}": colour for i, colour in enumerate(PRINT.series, 1)}
    assert set(colours) == set(CSS_NAMES.values())
    return '<?xml version="1.0" encoding="utf-8"?>\n' + re.sub(r"var\(--(\w+)\)", lambda v: colours[v.group(1)], plot)


def _bars(axes: Axes, colours: Palette, rows: list[tuple[str, float, int]], title: str) -> None:
    """Horizontal bars, one a (name, share, colour), with the figure at the end."""
    axes.barh(range(len(rows)), [share for _, share, _ in rows], 0.72, color=[colours.colour(c) for *_, c in rows])
    for at, (_, share, _) in enumerate(rows):
        axes.annotate(percent(share), (share, at), (4, 0), textcoords="offset points", va="center", fontsize=9, color=colours.ink)  # fmt: skip
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * max([share for _, share, _ in rows], default=1) or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    axes.grid(False, axis="y")
    axes.set_title(title)


def draw_pronouns(axes: Axes, colours: Palette, groups: Row) -> None:
    """Table 9a: share of all documents with each class of pronouns."""
    rows = [
        (name, entry["share"] or 0.0, number)
        for number, group in enumerate(groups.values())
        for name, entry in group["classes"].items()
    ]
    _bars(axes, colours, rows, "Documents with pronouns")


def draw_descriptors(axes: Axes, colours: Palette, axes_found: Row) -> None:
    """Table 9b: the five commonest descriptors of every axis, of the documents that mention the axis."""
    rows = []
    for number, (axis, entry) in enumerate(axes_found.items()):
        for rank, (term, found) in enumerate(list(entry["terms"].items())[:TOP]):
            head = f"{axis.replace('_', ' ')}: " if rank == 0 else ""
            rows.append((head + term, found["share_of_axis"], number))
    _bars(axes, colours, rows, "Descriptors, share of their axis")


def draw_toxicity(axes: Axes, colours: Palette, found: Row) -> None:
    """Fig. 13: documents by toxicity, on a logarithmic axis, since nearly all of them stand in the first bin."""
    histogram = found["histogram"]
    width = 1 / len(histogram)
    share = [n / found["scored"] if found["scored"] else 0.0 for n in histogram]
    axes.bar([(i + 0.5) * width for i in range(len(share))], share, 0.92 * width, color=colours.colour(0))
    axes.axvline(0.5, color=colours.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    if any(share):
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.set_xlim(0, 1)
    axes.set_xlabel("toxicity of a document (mean over its lines)")
    axes.set_title("Documents by toxicity")


def draw_languages(axes: Axes, colours: Palette, found: Row) -> None:
    """Table 10: the ten commonest languages."""
    rows = [(code, entry["share"], 0) for code, entry in list(found["shares"].items())[:10]]
    _bars(axes, colours, rows, "Documents by language")
