"""Tables and panels that the studies of RLHF have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ayni.studies.paired import Outcomes, level
from ayni.studies.study import Effect, Panel, Series

# The examiner's figures of a model, in hundredths. Utility: benign prompts. Violations: harmful ones.
EXAMINED = {
    "utility": "utility x 100",
    "facts_right": "facts right, %",
    "truthful": "truthful, %",
    "violation": "violations, %",
    "refusal": "needless refusals, %",
}
DRAWN = {"utility": "utility", "facts_right": "facts right", "violation": "violations"}


def line(name: str, x: Sequence[float | str], levels: Sequence[Effect]) -> Series:
    """A line (or bars) with its intervals."""
    return Series(name, x, [e.value for e in levels], [e.low for e in levels], [e.high for e in levels])


def examined(outcomes: Outcomes, words: Mapping[str, str]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: an arm a row, in `words`, and what the examiner says of it."""
    rows = [[said, *(level(outcomes, name, arm).cell(100, 1) for name in EXAMINED)] for arm, said in words.items()]
    return ["model", *EXAMINED.values()], rows


def examined_bars(outcomes: Outcomes, words: Mapping[str, str]) -> Panel:
    """Utility, facts and violations of every arm."""
    bars = [
        line(said, [*DRAWN.values()], [level(outcomes, name, arm) for name in DRAWN]) for arm, said in words.items()
    ]
    return Panel("by the examiner", "", "share; utility", bars, "bars")
