"""The reward models of a version as tables and plots: accuracy.json, key by key, whatever of it is there."""

from __future__ import annotations

from functools import partial
from typing import Any

from markupsafe import Markup

from ayni.report import figures, version_figures
from ayni.report import results as read

Row = dict[str, Any]
# The paper's Table 8 (70B): held-out accuracy in percent, from significantly better to negligibly better.
TABLE_8 = {"helpfulness": (80.7, 67.5, 60.9, 54.7), "safety": (94.3, 76.3, 65.7, 55.3)}
KNOWN_BY = ("accuracy_by_domain", "accuracy_by_strength", "accuracy_by_kind")


def table_8(models: list[Row]) -> Row | None:
    """Accuracy by strength, then by domain, a row per reward model with the paper's below it."""
    strengths = figures.strengths(models)
    domains = list(dict.fromkeys(row["domain"] for model in models for row in model.get("accuracy_by_domain") or []))
    if not strengths and not domains:
        return None
    rows = []
    for model in models:
        by_strength = {row["strength"]: row for row in model.get("accuracy_by_strength") or []}
        by_domain = {row["domain"]: row for row in model.get("accuracy_by_domain") or []}
        cells = [by_strength.get(s) for s in strengths] + [by_domain.get(d) for d in domains]
        paper = TABLE_8.get(model["name"]) if len(strengths) == 4 else None
        rows.append({"name": model["name"], "cells": cells, "paper": paper, "baselines": baselines(model, strengths)})
    return {"strengths": strengths, "domains": domains, "rows": rows}


BASELINES = {"longer": "the longer answer", "length": "lengths, learned", "words": "words, learned"}


def baselines(model: Row, strengths: list[str]) -> list[Row]:
    """Rows below a model's: the same pairs ranked by their length or their words alone."""
    by_strength = {row.get("strength"): row for row in (model.get("baselines") or {}).get("by_strength") or []}
    names = dict.fromkeys(name for row in by_strength.values() for name in row if isinstance(row[name], dict))
    return [
        {"name": BASELINES.get(name, name), "cells": [by_strength.get(s, {}).get(name) for s in strengths]}
        for name in names
    ]


def other_accuracy(models: list[Row]) -> list[Row]:
    """Any further `accuracy_by_X` (annotator, source, ...), a table each."""
    tables = []
    for key in dict.fromkeys(key for model in models for key in model if key.startswith("accuracy_by_")):
        by = key.removeprefix("accuracy_by_")
        found = {m["name"]: {row.get(by): row for row in m.get(key) or []} for m in models}
        names = list(dict.fromkeys(name for rows in found.values() for name in rows if name is not None))
        if key not in KNOWN_BY and names:
            rows = [{"name": name, "cells": [found[model].get(name) for model in found]} for name in names]
            tables.append({"by": by, "models": list(found), "rows": rows})
    return tables


def calibration(model: Row) -> tuple[list[Row], float | None]:
    """(bins as `predicted`, `observed`, `low`, `high`; expected calibration error), where accuracy.json has them."""
    found = model.get("calibration") or {}
    bins = []
    for row in found.get("bins") or []:
        observed = row.get("observed")
        if not isinstance(observed, dict):
            observed = {"value": observed}
        if row.get("predicted") is not None and observed.get("value") is not None:
            ends = {end: observed.get(end) for end in ("low", "high")}
            bins.append({"predicted": row["predicted"], "observed": observed["value"], **ends})
    return bins, found.get("ece")


def remarks(models: list[Row]) -> list[str]:
    """What needs a sentence and no table: calibration, ratings, unsafe answers at one half (Table 29)."""
    sentences = []
    for model in models:
        name = f"{model['name'].capitalize()} model"
        error, ratings = calibration(model)[1], model.get("ratings") or {}
        if error is not None:
            sentences.append(f"{name}: expected calibration error {read.plain(error)}.")
        if ratings.get("spearman") is not None:
            sentences.append(
                f"{name}: rank correlation with people’s ratings {read.plain(ratings['spearman'])} on {ratings.get('n')} answers."
            )
        half = model.get("unsafe_at_half") or {}
        if all((half.get(key) or {}).get("value") is not None for key in ("recall", "precision")):
            found, right = read.plain(half["recall"]), read.plain(half["precision"])
            sentences.append(
                f"{name}: of the unsafe answers, {found}% score below 0.5 (the paper’s: 90.4%); of those below, {right}% are unsafe."
            )
    return sentences


def plots(models: list[Row], plot: Any) -> list[Markup]:
    drawn = []
    if any(row.get("value") is not None for model in models for row in model.get("accuracy_by_strength") or []):
        drawn.append(plot("strength", partial(figures.draw_by_strength, models=models), (4.9, 3.7)))
    kinds = {row["kind"] for model in models for row in model.get("accuracy_by_kind") or []}
    if kinds:
        size = (4.9, max(3.7, 1.6 + 0.32 * len(kinds)))
        drawn.append(plot("kind", partial(figures.draw_by_kind, models=models), size))
    calibrated = [(model["name"], bins) for model in models if (bins := calibration(model)[0])]
    if calibrated:
        drawn.append(plot("calibration", partial(version_figures.draw_calibration, models=calibrated), (4.9, 3.9)))
    rated = [(model["name"], rows) for model in models if (rows := (model.get("ratings") or {}).get("by_rating"))]
    if rated:
        drawn.append(plot("ratings", partial(version_figures.draw_ratings, models=rated), (4.9, 3.9)))
    return drawn
