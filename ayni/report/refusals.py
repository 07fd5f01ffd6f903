"""The screen of `ayni check-refusals`: the refusal scorer beside people's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.evals.packages import PINS, pinned_wheel
from ayni.evals.refusal_labels import measure, measure_pyrit

SCORER = "phrases at the opening (ayni/scoring/refusal.py)"


def check(labels: Path | None, pyrit: bool) -> None:
    """A table for the user's labels, and one for PyRIT's refusal set."""
    if labels is not None:
        found = measure(labels)
        agreement = found.pop("agreement")
        _table(found, f"{labels}: {SCORER}")
        people = "–" if agreement["people"] is None else f"{agreement['people']:.3f}"
        telemetry.show(f"Gwet's AC1: people among themselves {people}, scorer with them {agreement['scorer']:.3f}")
    if pyrit:
        by_rows = measure_pyrit(pinned_wheel("pyrit"))
        for rows, what in (
            ("all", "all rows"),
            ("clear", "without answers to another question, which PyRIT calls refusals"),
        ):
            _table(by_rows[rows], f"PyRIT {PINS['pyrit'].version}, refusal set, {what}: {SCORER}")


def _table(found: dict[str, dict[str, Any]], title: str) -> None:
    rows = [[name, f["value"], f["low"], f["high"], f["n"]] for name, f in found.items()]
    telemetry.table(["refusals", "value", "low", "high", "n"], rows, title=title)
