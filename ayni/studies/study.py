"""What a study is: a claim of the paper, arms that differ in one thing, what is measured, and what would decide.

    measure(lab, arm) -> Outcome          one arm with one seed; `lab` makes the models (and shares them among arms)
    conclude(outcomes) -> Conclusion      all arms and seeds: effects with intervals, a table, a figure's series

An effect is a number that the claim says lies above a bound. Its interval decides: the paper's direction *holds* if the
whole interval lies above the bound, *does not hold* if the whole interval lies below it, and is *not resolved* otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ayni.studies.lab import Lab
    from ayni.studies.paired import Outcomes

Group = Literal["pretraining", "reward", "rlhf", "safety", "real"]
Verdict = Literal["holds", "does not hold", "not resolved"]


@dataclass(frozen=True)
class Outcome:
    """What one arm gave with one seed.

    `values`: metric -> {unit of evidence (a prompt, a pair): value}; the same units in all arms of a seed, so that arms
    are compared unit by unit. A figure that is one number per model has the single unit "all".
    `facts`: whatever else the table or the figure needs; JSON.
    """

    values: dict[str, dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Effect:
    """`value` with its 95% interval, and the bound that the claim says it exceeds."""

    name: str  # in words: "facts right, all data minus half, percentage points"
    value: float | None  # None, and so the bounds: no unit of evidence was found (a smoke run)
    low: float | None
    high: float | None
    n: int  # units of evidence over all seeds
    unit: str = "share"
    above: float = 0.0

    @property
    def verdict(self) -> Verdict:
        if self.low is None or self.high is None:
            return "not resolved"
        if self.low > self.above:
            return "holds"
        return "does not hold" if self.high < self.above else "not resolved"

    def cell(self, scale: float = 1.0, digits: int = 2) -> str:
        """For a table: value [low, high], each times `scale`."""
        if self.value is None or self.low is None or self.high is None:
            return "–"
        return f"{scale * self.value:.{digits}f} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


@dataclass(frozen=True)
class Series:
    """A line (or, with `kind` "bars", bars) of the figure; `low` and `high` run parallel to `y`. `paper`: the paper's own."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    paper: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes. A panel of the paper's numbers stands beside ours where the scales differ."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    kind: Literal["lines", "bars"] = "lines"
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Conclusion:
    """`effects`: the first is the headline. `table`: columns and rows, the paper's numbers beside ours."""

    effects: Sequence[Effect]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    panels: Sequence[Panel]
    remarks: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        """Of the claim as a whole: it holds if every effect does, and fails if any does."""
        verdicts = {effect.verdict for effect in self.effects}
        if "does not hold" in verdicts:
            return "does not hold"
        return "not resolved" if "not resolved" in verdicts else "holds"


@dataclass(frozen=True)
class Study:
    name: str  # of the command and the folder
    group: Group
    claim: str  # one sentence that can be wrong
    paper: str  # where it stands in the paper, and its numbers in words
    arms: Sequence[str]
    measure: Callable[[Lab, str], Outcome]
    conclude: Callable[[Outcomes], Conclusion]
    method: str = ""  # what differs between the arms, and what is equal; a paragraph of the page
    needs: Sequence[str] = ()  # what the user must give: "model", "preferences" (Lab.given)
