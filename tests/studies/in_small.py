"""What holds for every study that has been run in small, whatever its group."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from ayni.report import study as report
from ayni.studies import run
from ayni.studies.lab import Lab, load_scale


def run_in_small(names: Sequence[str], work: Path) -> Path:
    """The studies, one seed; results under work/out, models under work/smoke."""
    run.run(names, work, work / "out", seeds=1, scale="smoke", jobs=1)
    return work


def first_lab(work: Path) -> Lab:
    """The seed's models as the studies left them."""
    return Lab(work / "smoke" / "seed-0", 0, "smoke", load_scale("smoke"))


def check_result(work: Path, name: str, group: str, every_line: bool = True) -> None:
    """A complete result, finite where there are units of evidence, with its picture and its page.

    `every_line`: no line of a panel is empty; a smoke world lacks some tasks, so that a group may ask for one line only.
    """
    result = json.loads((work / "out" / name / run.RESULT).read_text(encoding="utf-8"))
    assert {"claim", "paper", "ours", "low", "high", "seeds", "n", "verdict"} <= set(result)
    assert result["group"] == group
    for effect in result["effects"]:
        assert effect["n"] > 0, effect["name"]
        assert effect["low"] <= effect["value"] <= effect["high"], effect["name"]
    assert all(len(row) == len(result["table"]["columns"]) for row in result["table"]["rows"])
    for panel in result["panels"]:
        assert all(y is None or math.isfinite(y) for line in panel["series"] for y in line["y"])
        told = [any(y is not None for y in line["y"]) for line in panel["series"]]
        assert all(told) if every_line else any(told), panel["title"]
    [figure] = report.write([work / "out" / name / run.RESULT])
    assert figure.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert result["claim"] in figure.with_name("README.md").read_text(encoding="utf-8")
