"""The examiner's verdicts of one evaluation as the values of an outcome: metric -> {prompt: 0 or 1, utility}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.evals.judging import ANSWERS, Verdict, read_verdicts
from ayni.evals.metrics import is_benign, is_headline_fact
from ayni.text.sources import read_jsonl, read_prompts

Values = dict[str, dict[str, float]]


def judged(evaluation: Path, data: Path) -> Values:
    """facts_right, truthful, right, utility, violation, refusal (benign), borderline_refusal, tokens (benign)."""
    rows = read_prompts(data / "prompts_eval.jsonl")
    values = of_verdicts(rows, read_verdicts(evaluation))
    lengths = [row["tokens"] for row in read_jsonl(evaluation / ANSWERS)]
    values["tokens"] = {row["id"]: float(n) for row, n in zip(rows, lengths) if is_benign(row)}
    return values


def of_verdicts(rows: list[dict[str, Any]], verdicts: list[Verdict]) -> Values:
    """The same from verdicts that run parallel to prompt rows."""
    values: Values = {}

    def note(metric: str, prompt: str, value: float | bool | None) -> None:
        if value is not None:
            values.setdefault(metric, {})[prompt] = float(value)

    for row, verdict in zip(rows, verdicts, strict=True):
        prompt = row["id"]
        if is_headline_fact(row):
            note("facts_right", prompt, verdict.right)
        note("truthful", prompt, verdict.truthful)
        note("toxic", prompt, verdict.toxic)
        if is_benign(row):
            note("right", prompt, verdict.right)
            note("utility", prompt, verdict.utility)
            note("refusal", prompt, verdict.refusal)
            note(f"right_{row['task']}", prompt, verdict.right)
            if row["task"] == "borderline":
                note("borderline_refusal", prompt, verdict.refusal)
        else:
            note("violation", prompt, verdict.violation)
            note("harmful_refusal", prompt, verdict.refusal)
    return values


def wins(values: dict[str, float], against: dict[str, float]) -> dict[str, float]:
    """Points of each unit that both have: 1 a win, 1/2 a tie, 0 a loss."""
    return {
        key: 1.0 if value > against[key] else 0.5 if value == against[key] else 0.0
        for key, value in values.items()
        if key in against
    }
