"""The page of one version inside report.html: data, reward models, sampling, PPO, evaluation, twenty dialogues."""

from __future__ import annotations

from functools import partial
from typing import Any

from markupsafe import Markup

from ayni.report import figures, version_figures
from ayni.report import results as read
from ayni.report.samples import chosen
from ayni.report.versions import Version

Row = dict[str, Any]
DIALOGUES = 20
COUNTS = {
    "strength": "How much better the chosen answer is",
    "safety": "Safety label",
    "annotator": "Annotator",
    "prompt_kind": "Kind of prompt",
    "dropped": "Dropped, and why",
}
# The paper's Table 8 (70B): held-out accuracy in percent, from significantly better to negligibly better.
TABLE_8 = {"helpfulness": (80.7, 67.5, 60.9, 54.7), "safety": (94.3, 76.3, 65.7, 55.3)}
SAFETY_LABELS = {"chosen_only": "only the chosen one is safe", "both": "both are safe", "neither": "neither is safe"}
SCORES = ("reward", "reward_help", "reward_safety", "utility", "tokens")
KNOWN_BY = ("accuracy_by_domain", "accuracy_by_strength", "accuracy_by_kind")
PPO_PANELS = (
    ("Reward (raw scores)", {"reward": "gated", "reward_help": "helpfulness", "reward_safety": "safety", "heldout_reward": "held-out"}),
    ("KL from the start (nats per answer)", {"kl_k1": "k1", "kl_k3": "k3", "heldout_kl": "held-out"}),
    ("Mean tokens per answer", {"mean_tokens": "rollouts", "heldout_tokens": "held-out"}),
    ("Answers ended by EOS", {"eos_share": "share"}),
    ("Answers the safety model scored", {"gated_to_safety": "share"}),
    ("Entropy (nats per token)", {"entropy": "entropy"}),
    ("Clipped ratios", {"clip_share": "share"}),
    ("Variance the critic explains", {"value_ev": "share"}),
    ("Losses", {"policy_loss": "policy", "value_loss": "critic"}),
    ("Mean ratio to the old policy", {"ratio": "ratio"}),
    ("Gap between engine and training forward", {"engine_gap": "nats per token"}),
)  # fmt: skip
NO_PANEL = {"step", "optimizer_steps"}


def version_page(run: read.Run, version: Version, number: int) -> Row:
    """All that the template shows of a version; what the run has no file for is empty."""
    plot = partial(_plot, f"version{number}")
    return {
        "id": f"version-{number}",
        "name": version.name,
        "counts": counts(version.preferences),
        "totals": totals(version.preferences),
        "table8": table_8(version.reward_models),
        "other_accuracy": other_accuracy(version.reward_models),
        "gates": [model for model in version.reward_models if model.get("gate")],
        "errors": {m["name"]: ece for m in version.reward_models if (ece := calibration(m)[1]) is not None},
        "reward_plots": reward_plots(version.reward_models, plot),
        "sampling_plots": sampling_plots(version, plot),
        "picked": version.picked,
        "losses": loss_plots(version.curves, plot),
        "ppo": ppo_plots(version.ppo, plot),
        "evaluation": evaluation(version),
        "dialogues": dialogues(run.samples, version),
    }


def _plot(prefix: str, name: str, draw: Any, size: tuple[float, float] = (4.9, 3.4)) -> Markup:
    return Markup(figures.svg(f"{prefix}-{name}", draw, size))


def counts(summary: Row) -> list[Row]:
    """Each count of summary.json as a table with bars, in a reader's order; the largest bar is full."""
    found = []
    for key in sorted(summary, key=lambda key: (list(COUNTS).index(key) if key in COUNTS else len(COUNTS), key)):
        rows = summary[key]
        if not isinstance(rows, dict) or not all(isinstance(n, int) for n in rows.values()):
            continue
        names = SAFETY_LABELS if key == "safety" else {}
        ordered = reversed(rows.items()) if key == "strength" else rows.items()
        largest = max(rows.values(), default=0) or 1
        lines = [{"name": names.get(name, name), "n": n, "share": 100 * n / largest} for name, n in ordered]
        found.append({"key": key, "title": COUNTS.get(key, key.replace("_", " ")), "rows": lines})
    return found


def totals(summary: Row) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), read.plain(n)) for key, n in summary.items() if isinstance(n, int | float | str)]


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
        rows.append({"name": model["name"], "cells": cells, "paper": TABLE_8.get(model["name"])})
    return {"strengths": strengths, "domains": domains, "rows": rows}


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
    """(bins with `predicted` and `observed`, expected calibration error), where accuracy.json has them."""
    found = model.get("calibration") or []
    error = found.get("ece", found.get("expected_calibration_error")) if isinstance(found, dict) else None
    rows = next((v for v in found.values() if isinstance(v, list)), []) if isinstance(found, dict) else found
    bins = [row for row in rows if row.get("predicted") is not None and row.get("observed") is not None]
    return bins, model.get("ece", error)


def reward_plots(models: list[Row], plot: Any) -> list[Markup]:
    plots = []
    if any(row.get("value") is not None for model in models for row in model.get("accuracy_by_strength") or []):
        plots.append(plot("strength", partial(figures.draw_by_strength, models=models), (4.9, 3.7)))
    kinds = {row["kind"] for model in models for row in model.get("accuracy_by_kind") or []}
    if kinds:
        size = (4.9, max(3.7, 1.6 + 0.32 * len(kinds)))
        plots.append(plot("kind", partial(figures.draw_by_kind, models=models), size))
    calibrated = [(model["name"], bins) for model in models if (bins := calibration(model)[0])]
    if calibrated:
        plots.append(plot("calibration", partial(version_figures.draw_calibration, models=calibrated), (4.9, 3.7)))
    return plots


def sampling_plots(version: Version, plot: Any) -> list[Markup]:
    plots = []
    if any(row.get("k") is not None for row in version.rewards_by_k):
        rows = [row for row in version.rewards_by_k if row.get("k") is not None]
        plots.append(plot("by-k", partial(version_figures.draw_rewards_by_k, rows=rows)))
    keys = sweep_keys(version.temperatures)
    if keys:
        draw = partial(version_figures.draw_temperatures, rows=version.temperatures, keys=keys)
        plots.append(plot("temperature", draw))
    return plots


def sweep_keys(rows: list[Row]) -> list[str]:
    """The figures of a sweep that are rewards, or any figure where none is called so."""
    found = list(
        dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float) and k != "temperature")
    )
    rewards = [key for key in found if key in version_figures.NAMES or "reward" in key]
    return (rewards or found)[: figures.SERIES]


def loss_plots(curves: dict[str, list[Row]], plot: Any) -> list[Markup]:
    plots: list[Markup] = []
    for stage, rows in curves.items():
        if len(figures.points(rows, "loss")[1]) > 1:
            draw = partial(figures.draw_loss, rows=rows, title=f"Loss: {stage}", colour=len(plots))
            plots.append(plot(f"loss{len(plots)}", draw, (3.6, 2.3)))
    return plots


def ppo_plots(rows: list[Row], plot: Any) -> Row | None:
    """The panels whose columns the log has, two of them large; every other number of the log gets a small one."""
    named = {key for _, keys in PPO_PANELS for key in keys} | NO_PANEL
    rest = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, int | float) and k not in named)
    panels = [*PPO_PANELS, *((key.replace("_", " "), {key: key}) for key in rest)]
    main: list[Markup] = []
    side: list[Markup] = []
    for i, (title, keys) in enumerate(panels):
        present = {key: label for key, label in keys.items() if figures.points(rows, key)[1]}
        if present:
            draw = partial(figures.draw_curves, rows=rows, title=title, keys=present)
            tall = (3.6, 2.2) if len(present) == 1 else (3.6, 2.5)
            (main if i < 2 else side).append(plot(f"ppo{i}", draw, (4.9, 3.4) if i < 2 else tall))
    return {"main": main, "side": side} if main or side else None


def evaluation(version: Version) -> Row | None:
    """The version's figures beside those of SFT, of the version before and of its own rejection sampling."""
    if version.checkpoint is None:
        return None
    columns = [*version.beside, version.checkpoint]
    known = [metric.name for metric in read.columns(columns)]
    others = [n for n in dict.fromkeys(n for c in columns for n in c["metrics"]) if n not in known]
    tables = [
        [
            {
                "metric": read.BY_NAME.get(name),
                "name": name,
                "cells": [read.figure(c, name) for c in columns],
                "verdicts": [apart(read.figure(c, name), read.figure(version.checkpoint, name), name) for c in columns[:-1]],
            }
            for name in names
            if any(read.figure(c, name) for c in columns)
        ]
        for names in (known, others)
    ]  # fmt: skip
    return {"columns": [c["name"] for c in columns], "rows": tables[0], "others": tables[1]}


def apart(old: Row | None, new: Row | None, metric: str) -> str:
    """ "better" or "worse" (or "higher", "lower") where the two intervals do not touch, else nothing."""
    if old is None or new is None or any(found.get(end) is None for found in (old, new) for end in ("low", "high")):
        return ""
    if old["low"] <= new["high"] and new["low"] <= old["high"]:
        return ""
    known, higher = read.BY_NAME.get(metric), new["value"] > old["value"]
    if known is None or known.better is None:
        return "higher" if higher else "lower"
    return "better" if higher == (known.better == "high") else "worse"


def dialogues(samples: list[Row], version: Version) -> list[Row]:
    """Twenty held-out prompts, failures too, each with the answers of the checkpoints beside and their scores."""
    names = version.names
    rows = [row for row in samples if any(name in row["answers"] for name in names)]
    return [
        {"task": task, "rows": [{**row, "answers": _answers(row, names, version.scores)} for row in found]}
        for task, found in chosen(rows, DIALOGUES, names).items()
    ]


def _answers(row: Row, names: list[str], scores: dict[str, dict[str, Row]]) -> list[Row]:
    answers = []
    for name in names:
        if name in row["answers"]:
            given = {**scores.get(name, {}).get(str(row.get("id")), {}), **((row.get("scores") or {}).get(name) or {})}
            answers.append(
                {
                    "name": name,
                    "text": row["answers"][name],
                    "label": (row.get("labels") or {}).get(name),
                    "scores": {key: read.plain(given[key]) for key in SCORES if given.get(key) is not None},
                }
            )
    return answers
