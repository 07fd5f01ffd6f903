"""The paper's tables with ours as a screen, as Markdown, or as one HTML page without scripts or network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.text import Text

from ayni import telemetry
from ayni.artifacts import writing_aside
from ayni.report.paper_tables import PaperTable
from ayni.report.study import markdown

HEAD = (
    "Our figures beside the paper's, in its arrangement. (paper): full sets, its own judges, models of 7B to 70B parameters. A dash was "
    "not measured, or could not be checked in the paper. A letter says that a figure is not the paper's measurement; brackets are 95% intervals."
)
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#222;background:#fff}"
    "div{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0}caption{text-align:left;font-weight:600;padding:.4rem 0}"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}"
    "tr.ours td{background:#eef4fb}sup{color:#06c}p.note{margin:.1rem 0;font-size:.85rem}"
)
WIDE = 8  # columns beside the first that a screen holds


def show(tables: Sequence[PaperTable]) -> None:
    telemetry.show(Text(HEAD))
    for table in tables:
        for first in range(1, len(table.columns), WIDE):
            cut = slice(first, first + WIDE)
            rows = [[name, *cells[first - 1 : first - 1 + WIDE]] for name, cells in table.rows]
            telemetry.table([table.columns[0], *table.columns[cut]], rows, title=f"Table {table.number}: {table.title}")
        telemetry.show(*(Text(f"({letter}) {note}") for note, letter in table.notes.items()))


def write(tables: Sequence[PaperTable], out: Path) -> None:
    """`out` ends in .md or .html; a file that exists is not replaced."""
    pages = {".md": as_markdown, ".html": as_html}
    if out.suffix not in pages:
        raise ValueError(f"{out}: expected a file that ends in {' or '.join(pages)}")
    text = pages[out.suffix](tables)
    with writing_aside(out) as work:
        work.write_text(text, encoding="utf-8")


def as_markdown(tables: Sequence[PaperTable]) -> str:
    parts = ["# Tables of the paper", HEAD]
    for table in tables:
        parts += [
            f"## Table {table.number}: {table.title}",
            markdown(table.columns, [[name, *cells] for name, cells in table.rows]),
        ]
        parts += [f"({letter}) {note}" for note, letter in table.notes.items()]
    return "\n\n".join(parts) + "\n"


def as_html(tables: Sequence[PaperTable]) -> str:
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Tables of the paper</title><style>{STYLE}</style>"
    ]
    parts.append(f"<h1>Tables of the paper</h1><p>{escape(HEAD)}</p>")
    for table in tables:
        head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
        parts.append(f"<div><table><caption>Table {table.number}: {escape(table.title)}</caption><tr>{head}</tr>")
        for name, cells in table.rows:
            own = ' class="ours"' if any(cell.mark for cell in cells) else ""
            row = "".join(
                f"<td>{escape(cell.text)}{f'<sup>{cell.mark}</sup>' if cell.mark else ''}</td>" for cell in cells
            )
            parts.append(f"<tr{own}><td>{escape(name)}</td>{row}</tr>")
        parts.append("</table></div>")
        parts += [f'<p class="note"><sup>{letter}</sup> {escape(note)}</p>' for note, letter in table.notes.items()]
    return "\n".join(parts) + "\n</html>\n"
