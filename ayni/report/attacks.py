"""A set of attacks at a glance: how many of each category and style, and one of each style as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from ayni import telemetry
from ayni.text.attacks import HeldOut

SHOWN = 160  # characters of an example


def show(rows: Sequence[dict[str, Any]], held: HeldOut) -> None:
    """Rows of the table: styles (a star: held out) with their vector; columns: categories, attacks + look-alikes."""
    cells = Counter((row["meta"]["style"], row["meta"]["category"], row["task"]) for row in rows)
    categories = sorted({row["meta"]["category"] for row in rows})
    attacks_last = sorted(rows, key=lambda row: row["task"] == "harmful")
    first = {row["meta"]["style"]: row for row in attacks_last}  # of each style an attack, if it has one
    vectors = {style: row["meta"]["vector"] or "no manipulation" for style, row in first.items()}
    telemetry.table(
        ["style", "vector", *categories],
        [
            [
                style + ("*" if style in held.styles else ""),
                vectors[style],
                *(
                    f"{cells[style, category, 'harmful']} + {cells[style, category, 'borderline']}"
                    for category in categories
                ),
            ]
            for style in sorted(first)
        ],
        title=f"{len(rows)} prompts: attacks + borderline look-alikes (* the style never trains)",
    )
    for style, row in sorted(first.items()):
        said = " / ".join(message["content"] for message in row["messages"])
        short = said if len(said) <= SHOWN else said[: SHOWN - 1] + "…"
        telemetry.show(Text(f"{style} ({row['task']}): {short}"))
