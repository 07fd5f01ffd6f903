"""Figures of judged pairs: wins, ties and losses, win rates, strengths, what the raters' places and agreement say (paper 3.4.2).

A judged pair is a row of comparisons.jsonl: {"id", "prompt_kind", "turns", "a", "b", "said": {rater: {"grades", "grade"}}, "grade",
"longer", ...}. `grade` is the majority's: 1 a is better, -1 b, 0 a tie, null where no rater gave a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from ayni import telemetry
from ayni.evals.judge_prompts import GRADE
from ayni.evals.pairwise import PRIOR, Comparison, bradley_terry, length_controlled, win_rate
from ayni.evals.statistics import mean_interval, missing, share
from ayni.feedback.agreement import gwet_ac1, gwet_ac2

Row = dict[str, Any]
OUTCOMES = {"win": 1, "tie": 0, "loss": -1}
SEVEN = list(range(-GRADE, GRADE + 1))


def majority(grades: Sequence[int | None]) -> int | None:
    """1, 0 or -1: what more than half of those raters say who gave a verdict; 0 where no outcome has so many."""
    signs = [(grade > 0) - (grade < 0) for grade in grades if grade is not None]
    if not signs:
        return None
    return next((sign for sign in (1, -1) if 2 * signs.count(sign) > len(signs)), 0)


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Those with a verdict. Length in characters, as AlpacaEval counts it."""
    return [
        Comparison(row["id"], row["a"], row["b"], (row["grade"] + 1) / 2, row["longer"])
        for row in rows
        if row["grade"] is not None
    ]


GROUPS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("helpful", lambda row: row["prompt_kind"] == "helpful"),
    ("safety", lambda row: row["prompt_kind"] == "safety"),
    ("single-turn", lambda row: row["turns"] == 1),
    ("multi-turn", lambda row: row["turns"] > 1),
)  # fmt: skip


def tallies(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """For every two models: {"a", "b", "all": figures, "groups": {name: figures}}, groups that split the prompts only."""
    out = []
    every = list(combinations(names, 2))
    with telemetry.progress("counting", len(every), "pairs of models") as bar:
        for a, b in every:
            own = [row for row in rows if (row["a"], row["b"]) == (a, b)]
            parts = {name: [row for row in own if inside(row)] for name, inside in GROUPS}
            groups = {name: tally(part, a, b) for name, part in parts.items() if 0 < len(part) < len(own)}
            out.append({"a": a, "b": b, "all": tally(own, a, b), "groups": groups})
            bar.advance()
    return out


def tally(rows: Sequence[Row], a: str, b: str) -> Row:
    """win, tie, loss of a (shares), win_rate (ties half), at_equal_length, longer (a's share of longer answers); no_verdict: a count.

    Bootstrap over prompts. Where one side always is the longer, there is no figure at equal length.
    """
    judged = [row for row in rows if row["grade"] is not None]
    prompts = [row["id"] for row in judged]
    found: Row = {
        outcome: mean_interval([float(row["grade"] == sign) for row in judged], "share", prompts)
        for outcome, sign in OUTCOMES.items()
    }
    found["win_rate"] = win_rate(comparisons(judged), a, b) if judged else missing("share")
    told_apart = {(row["longer"] > 0) - (row["longer"] < 0) for row in judged} not in ({1}, {-1})
    found["at_equal_length"] = (
        length_controlled(comparisons(judged), a, b) if judged and told_apart else missing("share at equal length")
    )
    found["longer"] = share([row["longer"] > 0 for row in judged if row["longer"] != 0])
    found["no_verdict"] = len(rows) - len(judged)
    return found


def strengths(rows: Sequence[Row], prior: float = PRIOR) -> Row:
    """Bradley-Terry log strengths of all models that were judged; empty where fewer than two were."""
    judged = comparisons(rows)
    return bradley_terry(judged, prior) if judged else {}


def places(rows: Sequence[Row], raters: Sequence[str]) -> Row:
    """Of every rater: pairs rated; replies that were no verdict; and over pairs with a verdict in both orders, what place did.

    steady: the same side is better (or neither) in both orders. first, second: whoever stood there was better, both times. `lean`
    = first - second.
    """
    out: Row = {}
    for rater in raters:
        said = [row["said"][rater]["grades"] for row in rows if rater in row["said"]]
        both = [grades for grades in said if len(grades) == 2 and None not in grades]
        signs = [tuple((grade > 0) - (grade < 0) for grade in grades) for grades in both]
        prompts = [row["id"] for row in rows if rater in row["said"] and _two(row["said"][rater]["grades"])]
        out[rater] = {
            "rated": len(said),
            "asked": sum(map(len, said)),
            "unparsable": sum(grade is None for grades in said for grade in grades),
            "in_both_orders": any(len(grades) == 2 for grades in said),
            "steady": share([first == second for first, second in signs]),
            "first": share([pair == (1, -1) for pair in signs]),
            "second": share([pair == (-1, 1) for pair in signs]),
            "lean": mean_interval(
                [float(pair == (1, -1)) - float(pair == (-1, 1)) for pair in signs], "first - second", prompts
            ),
        }
    return out


def _two(grades: Sequence[int | None]) -> bool:
    return len(grades) == 2 and None not in grades


def agreement(rows: Sequence[Row], raters: Sequence[str]) -> Row | None:
    """Gwet's AC1 on win, tie, loss and AC2 on the seven points, of all raters; None unless two of them rated one pair.

    Per prompt_kind too, as the paper gives them.
    """
    if len(raters) < 2:
        return None
    out: Row = {}
    parts = {name: [row for row in rows if inside(row)] for name, inside in GROUPS[:2]}
    for name, part in {"all": rows, **{name: part for name, part in parts.items() if len(part) < len(rows)}}.items():
        grades = [[row["said"].get(rater, {}).get("grade") for rater in raters] for row in part]
        twice = sum(sum(grade is not None for grade in given) >= 2 for given in grades)
        if twice:
            signs = [[None if grade is None else (grade > 0) - (grade < 0) for grade in given] for given in grades]
            out[name] = {"ac1": gwet_ac1(signs), "ac2": gwet_ac2(grades, SEVEN), "pairs": twice, "raters": len(raters)}
    return out or None
