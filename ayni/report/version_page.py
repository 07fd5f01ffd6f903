"""The page of one version inside report.html: data, reward models, sampling, PPO, evaluation, twenty dialogues."""

from __future__ import annotations

from functools import partial
from typing import Any

from markupsafe import Markup

from ayni.report import figures, version_figures
from ayni.report import results as read
from ayni.report import reward_tables as rewards
from ayni.report.samples import chosen
from ayni.report.versions import Sampling, Version

Row = dict[str, Any]
DIALOGUES = 20
COUNTS = {
    "strength": "How much better the chosen answer is",
    "safety": "Safety label",
    "annotator": "Annotator",
    "prompt_kind": "Kind of prompt",
    "turns": "Turns of the dialogue asked about",
    "variants": "Who answered",
    "dropped": "Dropped, and why",
}
WINS = (
    ("helpful_win_vs_{}", "helpful, by the judge"),
    ("harmless_win_vs_{}", "harmless, by the judge"),
    ("reward_win_vs_{}_helpful", "helpful prompts, by reward"),
    ("reward_win_vs_{}_safety", "safety prompts, by reward"),
)
SAFETY_LABELS = {"chosen_only": "only the chosen one is safe", "both": "both are safe", "neither": "neither is safe"}
SCORES = ("reward", "utility", "tokens")
PPO_PANELS = (
    ("Reward (raw scores)", {"reward": "gated", "reward_help": "helpfulness", "reward_safety": "safety", "heldout_reward": "held-out"}),
    ("KL from the start (nats per answer)", {"kl_k1": "k1", "kl_k3": "k3", "heldout_kl": "held-out"}),
    ("Reward by branch of the gate", {"reward_help_branch": "helpfulness", "reward_safety_branch": "safety"}),
    ("Guard model, held-out answers", {"heldout_guard": "score"}),
    ("Mean tokens per answer", {"mean_tokens": "rollouts", "heldout_tokens": "held-out"}),
    ("Answers ended by EOS", {"eos_share": "share"}),
    ("Answers the safety model scored", {"gated_to_safety": "share"}),
    ("Entropy (nats per token)", {"entropy": "entropy"}),
    ("Clipped ratios", {"clip_share": "share"}),
    ("Variance the critic explains", {"value_ev": "share"}),
    ("Losses", {"policy_loss": "policy", "value_loss": "critic"}),
    ("Mean ratio to the old policy", {"ratio": "ratio"}),
    ("Engine against training forward (nats)", {"engine_gap": "mean", "engine_gap_max": "largest"}),
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
        "table8": rewards.table_8(version.reward_models),
        "other_accuracy": rewards.other_accuracy(version.reward_models),
        "gates": [model for model in version.reward_models if model.get("gate")],
        "remarks": rewards.remarks(version.reward_models),
        "reward_plots": rewards.plots(version.reward_models, plot),
        "samplings": [sampling(found, i, plot) for i, found in enumerate(version.samplings)],
        "losses": loss_plots(version.curves, plot),
        "ppo": ppo_plots(version.ppo, plot),
        "evaluation": evaluation(version),
        "wins": wins(version),
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


def sampling(found: Sampling, i: int, plot: Any) -> Row:
    """The settings in words, the plots, and some of the answers that were picked."""
    plots = []
    by_k = [row for row in found.rewards_by_k if row.get("k") is not None]
    if by_k:
        plots.append(plot(f"by-k{i}", partial(version_figures.draw_rewards_by_k, rows=by_k)))
    points = [row for row in found.sweep.get("points") or [] if row.get("temperature") is not None]
    if any(row.get("max") is not None for row in points):
        draw = partial(
            version_figures.draw_temperatures, points_found=points, candidates=found.sweep.get("candidates") or [],
            chosen=found.sweep.get("chosen"),
        )  # fmt: skip
        plots.append(plot(f"temperature{i}", draw))
    return {"title": found.title, "facts": totals(found.summary), "plots": plots, "picked": found.picked}


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


def wins(version: Version) -> Row | None:
    """Fig. 11's figures: the win share against SFT and against the version before, by both judges."""
    if version.checkpoint is None:
        return None
    rows = [
        {"against": words, "cells": [read.figure(version.checkpoint, name.format(opponent)) for name, _ in WINS]}
        for opponent, words in (("sft", "SFT"), ("previous", "the version before"))
    ]
    judged = [row for row in rows if any(row["cells"])]
    new = any(
        cell for row in judged for cell in row["cells"][1:]
    )  # helpful against SFT alone stands in the table above
    return {"heads": [head for _, head in WINS], "rows": judged} if new else None


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
            given = {**scores.get(name, {}).get(str(row.get("id")), {}), "reward": (row.get("rewards") or {}).get(name)}
            answers.append(
                {
                    "name": name,
                    "text": row["answers"][name],
                    "label": (row.get("labels") or {}).get(name),
                    "scores": {key: read.plain(given[key]) for key in SCORES if given.get(key) is not None},
                }
            )
    return answers
