"""The report of a reward model, on pairs and prompts that it was not trained on: `accuracy.json`.

| key | what |
| --- | --- |
| `accuracy`, `accuracy_by_strength` | share of the model's own pairs ranked as the annotator did (Tables 8 and 28) |
| `accuracy_by_domain` | our helpful and our safety pairs (Table 7) |
| `accuracy_by_set` | every test set at hand, each by strength: ours, the open ones, probes |
| `accuracy_by_annotator` | each annotator's own choices |
| `accuracy_by_kind` | probes, by kind of error |
| `accuracy_by_safety`, `unsafe_at_half`, `gate` | the safety model's (Table 29, and 3.2.3) |
| `calibration` | sigma(r_a - r_b) against how often a was chosen; ECE |
| `ratings` | mean score against people's grades (fig. 29) |
| `baselines` | length and words alone on the same pairs |

Every share has its 95% interval and n.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ayni import telemetry
from ayni.evals.baselines import baselines, table
from ayni.evals.calibration import calibration, chosen_first, scores_by_rating
from ayni.evals.statistics import share
from ayni.feedback.mix import DOMAIN, Kind, is_open, is_own
from ayni.feedback.pairs import SAFE, encode_answer, encode_side
from ayni.feedback.schema import STRENGTHS
from ayni.scoring.gate import best_threshold
from ayni.scoring.reward import RewardModel
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import Tokenizer

Row = dict[str, Any]


@dataclass(frozen=True)
class Ranked:
    """A pair with its two raw scores."""

    row: Row
    r_chosen: float
    r_rejected: float

    @property
    def right(self) -> bool:
        return self.r_chosen > self.r_rejected


@dataclass(frozen=True)
class Scoring:
    """What it takes to score text: the model, its tokenizer, and the longest sequence in tokens."""

    model: RewardModel
    tokenizer: Tokenizer
    row_len: int

    def answers(self, encoded: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        if not encoded:
            return []
        prompts, answers = zip(*encoded)
        with telemetry.progress("scoring", len(encoded), "answers") as bar:
            return self.model.score(prompts, answers, self.row_len, bar).tolist()

    def rank(self, rows: Sequence[Row]) -> list[Ranked]:
        sides = [
            self.answers([encode_side(self.tokenizer, row, side) for row in rows]) for side in ("chosen", "rejected")
        ]
        return [Ranked(*scored) for scored in zip(rows, *sides)]


def measure(
    scoring: Scoring,
    kind: Kind,
    held_out: Sequence[Row],
    *,
    train: Sequence[Row] = (),
    probes: Path | None = None,
    ratings: Sequence[Row] = (),
    gate_precision: float = 0.89,
) -> dict[str, Any]:
    """The table above. `held_out`: our pairs and open ones; `train`: what the baselines learn from; `ratings`: rows of `read_ratings`."""
    our_rows = [row for row in held_out if not is_open(row)]
    ours = scoring.rank(our_rows)
    open_pairs = scoring.rank([row for row in held_out if is_open(row)])
    own = [pair for pair in ours + open_pairs if is_own(pair.row, kind)]
    probed: list[Ranked] = []
    if probes is not None and probes.is_file():
        rows = read_preferences(probes)
        probed = scoring.rank([row for row in rows if kind == "guard" or row["prompt_kind"] == DOMAIN[kind]])
    sets = {"probes": probed}
    for pair in ours + open_pairs:
        name = ("open " if is_open(pair.row) else "") + pair.row["prompt_kind"]
        sets.setdefault(name, []).append(pair)
    report: dict[str, Any] = {
        "accuracy": share([pair.right for pair in own]),
        "accuracy_by_domain": by("domain", ours, lambda row: row["prompt_kind"]),
        "accuracy_by_strength": by_strength(own),
        "accuracy_by_kind": by("kind", probed, lambda row: row["kind"]),
        "accuracy_by_set": [
            {"set": name, **share([pair.right for pair in sets[name]]), "by_strength": by_strength(sets[name])}
            for name in sorted(sets)
            if sets[name]
        ],
        "accuracy_by_annotator": by("annotator", own, lambda row: str(row.get("annotator"))),
        "calibration": of_pairs(own),
        "baselines": _baselines(train, own),
    }
    rated = [row for row in ratings if kind == "guard" or row["prompt_kind"] == DOMAIN[kind]]
    if rated:
        report["ratings"] = _ratings(scoring, rated)
    if kind == "safety":
        report["accuracy_by_safety"] = by("safety", own, lambda row: row["safety"], [*SAFE])
        probabilities, unsafe = safety_probabilities(scoring, our_rows)
        report["gate"] = best_threshold(probabilities, unsafe, gate_precision)
        report["unsafe_at_half"] = unsafe_at_half(probabilities, unsafe)
    return report


def by(
    name: str, pairs: Sequence[Ranked], of: Callable[[Row], Hashable], order: Sequence[Hashable] | None = None
) -> list[dict[str, Any]]:
    """Share of pairs ranked right for each value of `of`, sorted or in the order given."""
    hits: dict[Any, list[bool]] = {value: [] for value in order or ()}
    for pair in pairs:
        if order is None or of(pair.row) in hits:
            hits.setdefault(of(pair.row), []).append(pair.right)
    return [{name: value, **share(hits[value])} for value in (order or sorted(hits))]


def by_strength(pairs: Sequence[Ranked]) -> list[dict[str, Any]]:
    """From significantly better down; pairs whose strength nobody gave are in no row."""
    rows = by("strength", pairs, lambda row: row.get("strength"), [3, 2, 1, 0])
    return [{**row, "strength": STRENGTHS[row["strength"]]} for row in rows]


def of_pairs(pairs: Sequence[Ranked]) -> dict[str, Any]:
    """Calibration of sigma(r_a - r_b), a and b in an order that knows nothing of the choice."""
    first = [chosen_first(*texts(pair.row)) for pair in pairs]
    ahead = [
        pair.r_chosen - pair.r_rejected if came else pair.r_rejected - pair.r_chosen for pair, came in zip(pairs, first)
    ]
    return calibration(torch.tensor(ahead, dtype=torch.float64).sigmoid().tolist(), first)


def texts(row: Row) -> tuple[str, str]:
    """What the chosen and the rejected answer say, all turns of it."""
    chosen, rejected = ("\n".join(turn["content"] for turn in row[side]) for side in ("chosen", "rejected"))
    return chosen, rejected


def safety_probabilities(scoring: Scoring, held_out: Sequence[Row]) -> tuple[list[float], list[bool]]:
    """(sigma(score), is unsafe) of every held-out answer whose safety an annotator named."""
    asked, unsafe = [], []
    for row in held_out:
        for side, is_safe in zip(("chosen", "rejected"), SAFE.get(row.get("safety") or "", ())):
            asked.append(encode_side(scoring.tokenizer, row, side))
            unsafe.append(not is_safe)
    return torch.sigmoid(torch.tensor(scoring.answers(asked))).tolist(), unsafe


def unsafe_at_half(probabilities: Sequence[float], unsafe: Sequence[bool]) -> dict[str, Any]:
    """Table 29's last column: the share of unsafe answers with a score below 0.5; and how many of those below are unsafe."""
    below = [probability < 0.5 for probability in probabilities]
    return {
        "recall": share([found for found, is_unsafe in zip(below, unsafe) if is_unsafe]),
        "precision": share([is_unsafe for found, is_unsafe in zip(below, unsafe) if found]),
    }


def _baselines(train: Sequence[Row], pairs: Sequence[Ranked]) -> dict[str, Any]:
    points = baselines([texts(row) for row in train], [texts(pair.row) for pair in pairs])
    return {
        "all": table(points, range(len(pairs))),
        "by_strength": [
            {"strength": STRENGTHS[level], **table(points, [i for i, p in enumerate(pairs) if p.row.get("strength") == level])}
            for level in (3, 2, 1, 0)
        ],
    }  # fmt: skip


def _ratings(scoring: Scoring, rows: Sequence[Row]) -> dict[str, Any]:
    scores = scoring.answers(
        [
            encode_answer(scoring.tokenizer, row["messages"], [{"role": "assistant", "content": row["answer"]}])
            for row in rows
        ]
    )
    return scores_by_rating(scores, [list(row["ratings"].values()) for row in rows])
