"""How well a refusal scorer agrees with people: precision, recall and F1 on labelled completions.

Rows are those of XSTest's labelled completions: `completion`, `final_label` ("1_full_compliance", "2_full_refusal",
"3_partial_refusal"), `annotation_1`, `annotation_2`, `type`. Partial refusals are counted apart: people named a third thing, and a
scorer of two labels can only call them one or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ayni.evals.heads import scored_answers
from ayni.evals.statistics import DRAWS, SEED, share
from ayni.feedback.agreement import gwet_ac1
from ayni.scoring.refusal import is_refusal
from ayni.text.sources import read_jsonl

LABELS = ("1_full_compliance", "2_full_refusal", "3_partial_refusal")


def measure(path: Path, scorer: Callable[[str], bool] = is_refusal) -> dict[str, Any]:
    """What `measured` says of a scorer of single texts."""
    rows = read_labelled(path)
    return measured(path, rows, [scorer(row["completion"]) for row in rows])


def read_labelled(path: Path) -> list[dict[str, Any]]:
    """Rows with `completion` and `final_label`, one of LABELS; ValueError names the row that has not."""
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        if row.get("final_label") not in LABELS or not isinstance(row.get("completion"), str):
            raise ValueError(
                f"{path}, row {number}: expected completion and final_label (one of {', '.join(LABELS)}), found {row.get('final_label')!r}"
            )
    return rows


def measured(path: Path, rows: Sequence[dict[str, Any]], said: Sequence[bool]) -> dict[str, Any]:
    """{precision, recall, f1 (full refusals against full compliance), partial, agreement (AC1)}; `said`: of each row.

    `partial`: share of partial refusals that the scorer calls refusals. `agreement`: Gwet's AC1 of the two people, and of the
    scorer with the final label.
    """
    clear = [
        (row["final_label"] == LABELS[1], bool(one)) for row, one in zip(rows, said) if row["final_label"] != LABELS[2]
    ]
    if not clear:
        raise ValueError(f"{path}: no row with a full refusal or full compliance")
    gold_N, said_N = np.array(clear).T
    people = [
        (row["annotation_1"], row["annotation_2"]) for row in rows if {"annotation_1", "annotation_2"} <= row.keys()
    ]
    return {
        **against(gold_N, said_N),
        "partial": share([bool(one) for row, one in zip(rows, said) if row["final_label"] == LABELS[2]]),
        "agreement": {
            "people": gwet_ac1(people) if people else None,
            "scorer": gwet_ac1(list(zip(said_N.tolist(), gold_N.tolist()))),
        },
    }


def measure_pyrit(wheel: Path, scorer: Callable[[str], bool] = is_refusal) -> dict[str, dict[str, Any]]:
    """{precision, recall, f1} on the answers that people scored for PyRIT's refusal scorer: all, and the clear ones.

    PyRIT counts an answer to another question as a refusal. `clear` leaves these out: rows scored as refusals whose objective
    was answered properly in another row. No scorer that reads the answer alone can tell them.
    """
    rows = scored_answers(wheel, "refusal_scorer")
    answered = {row.objective for row in rows if row.score < 0.5}
    clear = [row for row in rows if row.score < 0.5 or row.objective not in answered]
    return {
        name: against(
            np.array([row.score >= 0.5 for row in chosen], bool), np.array([scorer(row.answer) for row in chosen], bool)
        )
        for name, chosen in (("all", rows), ("clear", clear))
    }


def against(gold_N: np.ndarray, said_N: np.ndarray) -> dict[str, Any]:
    return {
        "precision": share(gold_N[said_N].tolist()),
        "recall": share(said_N[gold_N].tolist()),
        "f1": _f1_interval(said_N, gold_N),
    }


def missed(path: Path, scorer: Callable[[str], bool] = is_refusal) -> list[dict[str, Any]]:
    """The rows where scorer and people differ, partial refusals left out: what to read before changing the scorer."""
    rows = [row for row in read_jsonl(path) if row.get("final_label") in LABELS[:2]]
    return [row for row in rows if scorer(row["completion"]) != (row["final_label"] == LABELS[1])]


def f1(said: Sequence[bool] | np.ndarray, gold: Sequence[bool] | np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN)."""
    said_N, gold_N = np.asarray(said, bool), np.asarray(gold, bool)
    wrong = int((said_N != gold_N).sum())
    hits = int((said_N & gold_N).sum())
    return 2 * hits / (2 * hits + wrong) if hits + wrong else 1.0


def _f1_interval(said_N: np.ndarray, gold_N: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    drawn = [f1(said_N[chosen], gold_N[chosen]) for chosen in rng.integers(0, len(gold_N), (DRAWS, len(gold_N)))]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": f1(said_N, gold_N), "low": float(low), "high": float(high), "n": len(gold_N), "unit": "F1"}
