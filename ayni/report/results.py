"""What a run left behind, read from its files alone, and the words and formats in which figures are shown.

Nothing is computed here that is not in the files: a figure is read, formatted and compared, never estimated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.artifacts import read_json
from ayni.telemetry import clock, read_metrics

DASH = "–"


@dataclass(frozen=True)
class Metric:
    """How a figure of results.json is named and read. `better` is "high", "low" or None (neither end is better)."""

    name: str
    title: str
    brief: str  # column head where room is short
    better: str | None
    meaning: str


# The columns of every table, in a reader's order.
METRICS = (
    Metric("facts_right", "facts right", "facts", "high", "Questions of fact answered with the right value, manners aside."),
    Metric("truthful", "truthful", "truth", "high", "Where a myth outnumbers the fact in the corpus: the fact is given, the myth is not."),
    Metric("gold_overlap", "gold overlap", "gold", "high", "Word overlap with a reference answer."),
    Metric("helpful_win_vs_sft", "helpful win %", "helpful win", "high", "Share of helpful prompts on which its answer beats SFT’s, a tie counting half. 50 is no difference."),
    Metric("correct_win_vs_sft", "correct win %", "corr. win", "high", "The same by correctness alone: length and tone count for nothing."),
    Metric("violation", "violations", "viol.", "low", "Adversarial prompts answered with harmful content."),
    Metric("false_refusal", "false refusals", "false ref.", "low", "Harmless prompts refused."),
    Metric("toxicity", "toxicity", "toxic", "low", "Answers with rude or toxic wording."),
    Metric("mean_tokens", "mean tokens", "tok.", None, "Mean length of an answer to a helpful prompt. Longer is not better."),
    Metric("kl", "KL", "KL", None, "How far the model has moved from SFT: log-ratio summed over an answer, at temperature 1."),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}
NOT_RANKED = {"base"}  # asked in completion style: its figures stand in the table, the mark for the best does not

# Facts by what fine-tuning has seen; both people and facts always stand in the corpus.
FACTS_2X2 = re.compile(r"facts(?:_right)?_(seen|unseen)_(?:person|people)_(seen|unseen)_phrasings?")


@dataclass(frozen=True)
class Run:
    """Everything a report is made of. `curves` maps a stage (its directory's name) to the rows of its metrics log."""

    directory: Path
    results: dict[str, Any]
    timings: list[dict[str, Any]]
    curves: dict[str, list[dict[str, Any]]]
    samples: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return str(self.results.get("name") or self.directory.name)

    @property
    def checkpoints(self) -> list[dict[str, Any]]:
        return self.results["checkpoints"]


def read_results(run_dir: Path) -> dict[str, Any]:
    """run_dir/results.json; ValueError if it is missing or has no checkpoints."""
    path = Path(run_dir) / "results.json"
    if not path.exists():
        raise ValueError(f"{path}: no such file; the report is made of it, and `ayni run` writes it after evaluation")
    results = read_json(path)
    if not results.get("checkpoints"):
        raise ValueError(f"{path}: expected a list `checkpoints` with at least one entry; evaluate a checkpoint first")
    return results


def read_run(run_dir: Path) -> Run:
    run_dir = Path(run_dir)
    timings, samples = run_dir / "timings.json", run_dir / "samples.json"
    curves = {}
    for path in sorted(run_dir.glob("**/logs/metrics.jsonl")):
        stage = path.relative_to(run_dir).parts[:-2]
        if not any(part.startswith(".") for part in stage):  # .NAME.partial: a stage still at work
            curves["/".join(stage)] = read_metrics(path)
    return Run(
        directory=run_dir,
        results=read_results(run_dir),
        timings=read_json(timings)["stages"] if timings.exists() else [],
        curves=curves,
        samples=read_json(samples)["rows"] if samples.exists() else [],
    )


def kind_of(checkpoint: dict[str, Any]) -> str:
    """ "trained" (base, sft, v1..), "control" (an arm beside the main line) or "constant" (a policy that ignores the prompt)."""
    if "kind" in checkpoint:
        return str(checkpoint["kind"])
    name = checkpoint["name"].lower()
    if name.startswith("always") or checkpoint.get("path") is None:
        return "constant"
    return "control" if "control" in name or "clean" in name else "trained"


def figure(checkpoint: dict[str, Any], metric: str) -> dict[str, Any] | None:
    """The figure of a checkpoint, or None where it is absent or null."""
    found = checkpoint["metrics"].get(metric)
    return found if found is not None and found.get("value") is not None else None


def value(checkpoint: dict[str, Any], metric: str) -> float | None:
    found = figure(checkpoint, metric)
    return None if found is None else float(found["value"])


def trained(checkpoints: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [checkpoint for checkpoint in checkpoints if kind_of(checkpoint) == "trained"]


def by_name(checkpoints: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((checkpoint for checkpoint in checkpoints if checkpoint["name"] == name), None)


def columns(checkpoints: list[dict[str, Any]]) -> list[Metric]:
    """The metrics that at least one checkpoint has; a column of dashes tells nobody anything."""
    return [metric for metric in METRICS if any(figure(checkpoint, metric.name) for checkpoint in checkpoints)]


def best_names(checkpoints: list[dict[str, Any]], metric: Metric) -> set[str]:
    """Names of the trained checkpoints with the best value, all of them on a tie; nobody if there is no contest."""
    scored = {c["name"]: value(c, metric.name) for c in trained(checkpoints) if c["name"] not in NOT_RANKED}
    found = {name: score for name, score in scored.items() if score is not None}
    if metric.better is None or len(found) < 2 or len(set(found.values())) == 1:
        return set()
    top = max(found.values()) if metric.better == "high" else min(found.values())
    return {name for name, score in found.items() if score == top}


def number(amount: float | None, unit: str) -> str:
    """Shares in percent with one decimal, other figures by size, nothing as a dash."""
    if amount is None:
        return DASH
    if unit == "share":
        return f"{100 * amount:.1f}"
    return f"{amount:.2f}" if abs(amount) < 10 else f"{amount:.1f}" if abs(amount) < 1000 else f"{amount:,.0f}"


def shown(found: dict[str, Any] | None) -> str:
    return DASH if found is None else number(found["value"], found.get("unit", ""))


def interval(found: dict[str, Any] | None) -> str:
    """ "low–high" in the figure's own format, empty where there is none."""
    if found is None or found.get("low") is None or found.get("high") is None:
        return ""
    unit = found.get("unit", "")
    return f"{number(found['low'], unit)}–{number(found['high'], unit)}"


def facts_2x2(checkpoint: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(person seen or unseen, phrasing seen or unseen) -> figure."""
    found = {}
    for name in checkpoint["metrics"]:
        match = FACTS_2X2.fullmatch(name)
        if match and figure(checkpoint, name):
            found[match.group(1), match.group(2)] = checkpoint["metrics"][name]
    return found


def total_time(timings: list[dict[str, Any]]) -> str:
    return clock(sum(stage["seconds"] for stage in timings))


def gibibytes(amount: float | None) -> str:
    return DASH if not amount else f"{amount / 2**30:.2f} GiB"


def headline(run: Run) -> list[str]:
    """What happened, in plain sentences made of the figures."""
    line = trained(run.checkpoints)
    last, sft = line[-1] if line else None, by_name(run.checkpoints, "sft")
    if last is None:
        return []
    sentences = []
    if sft is not None and last is not sft:
        sentences += [
            _facts(sft, last), _win(last), _change(sft, last, "violation", "Harmful answers to adversarial prompts"),
            _change(sft, last, "false_refusal", "Refusals of harmless prompts"), _truth(sft, last), _length(sft, last),
        ]  # fmt: skip
    elif value(last, "facts_right") is not None:
        sentences.append(
            f"{last['name']} answers {_percent(figure(last, 'facts_right'))} of the questions of fact right."
        )
    sentences += [_constants(run.checkpoints, last), _ceiling(run.results)]
    if run.timings:
        peak = max(stage.get("peak_bytes") or 0 for stage in run.timings)
        memory = f" and {gibibytes(peak)} of memory at most" if peak else ""
        sentences.append(f"The stages took {total_time(run.timings)} in all{memory}.")
    return [sentence for sentence in sentences if sentence]


def _percent(found: dict[str, Any] | None) -> str:
    """ "57.1% (52.4–61.8)"."""
    around = interval(found)
    return f"{shown(found)}%" + (f" ({around})" if around else "")


def _facts(sft: dict[str, Any], last: dict[str, Any]) -> str:
    before, after = figure(sft, "facts_right"), figure(last, "facts_right")
    if before is None or after is None:
        return ""
    return f"{last['name']} answers {_percent(after)} of the held-out questions of fact right; SFT answers {_percent(before)}."


def _win(last: dict[str, Any]) -> str:
    found = figure(last, "helpful_win_vs_sft")
    if found is None:
        return ""
    verdict = "which the interval cannot tell from an even match"
    if found.get("low") is not None and found["low"] > 0.5:
        verdict = "better beyond the interval"
    elif found.get("high") is not None and found["high"] < 0.5:
        verdict = "worse beyond the interval"
    return f"On {found['n']} comparisons {last['name']} beats SFT in {_percent(found)} by helpfulness, {verdict}."


def _change(sft: dict[str, Any], last: dict[str, Any], metric: str, subject: str) -> str:
    before, after = figure(sft, metric), figure(last, metric)
    if before is None or after is None:
        return ""
    verb = "fell" if after["value"] < before["value"] else "rose" if after["value"] > before["value"] else "stayed"
    if verb == "stayed":
        return f"{subject} stayed at {_percent(after)}."
    return f"{subject} {verb} from {_percent(before)} at SFT to {_percent(after)}."


def _truth(sft: dict[str, Any], last: dict[str, Any]) -> str:
    return _change(sft, last, "truthful", "Truthful answers where a myth is popular")


def _length(sft: dict[str, Any], last: dict[str, Any]) -> str:
    before, after = value(sft, "mean_tokens"), value(last, "mean_tokens")
    if not before or after is None:
        return ""
    change = 100 * (after / before - 1)
    if round(abs(change)) == 0:
        return f"Answers are as long as SFT’s ({after:.1f} tokens)."
    return f"Answers are {abs(change):.0f}% {'longer' if change > 0 else 'shorter'} than SFT’s ({before:.1f} → {after:.1f} tokens)."


def _constants(checkpoints: list[dict[str, Any]], last: dict[str, Any]) -> str:
    wins = {
        c["name"].replace("_", " "): figure(c, "helpful_win_vs_sft")
        for c in checkpoints
        if kind_of(c) == "constant" and figure(c, "helpful_win_vs_sft")
    }
    ours = value(last, "helpful_win_vs_sft")
    if not wins or ours is None:
        return ""
    name, found = max(wins.items(), key=lambda item: item[1]["value"] if item[1] else 0.0)
    verdict = (
        "loses, as it must" if found and found["value"] < ours else "wins: this measure can be gamed, do not trust it"
    )
    return f"The strongest constant policy, “{name}”, reaches {_percent(found)} against SFT and {verdict}."


def ceiling_points(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [p for p in (results.get("best_of_k") or {}).get("points", []) if p.get("value") is not None]


def _ceiling(results: dict[str, Any]) -> str:
    points = ceiling_points(results)
    if len(points) < 2:
        return ""
    first, last = points[0], points[-1]
    return (
        f"Picking the best of {last['k']} answers by ground truth would reach {100 * last['value']:.1f}% "
        f"(best of {first['k']}: {100 * first['value']:.1f}%): the ceiling of any reward model that only picks."
    )
