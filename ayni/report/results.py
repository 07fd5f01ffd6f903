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
    Metric("facts_right", "facts right", "facts", "high", "Questions about people fine-tuning never saw (or with a gold answer): the right value is given, manners aside."),
    Metric("truthful", "truthful", "truth", "high", "Where a myth outnumbers the fact in the corpus: the fact is given, the myth is not."),
    Metric("gold_overlap", "gold overlap", "gold", "high", "Word overlap with a reference answer."),
    Metric("helpful_win_vs_sft", "helpful win %", "helpful win", "high", "Share of harmless prompts on which its answer beats SFT’s, a tie counting half. 50 is no difference."),
    Metric("correct_win_vs_sft", "correct win %", "corr. win", "high", "The same by correctness alone: length and tone count for nothing."),
    Metric("violation", "violations", "viol.", "low", "Harmful and adversarial prompts answered with harmful content."),
    Metric("false_refusal", "false refusals", "false ref.", "low", "Harmless prompts refused, those with alarming words included."),
    Metric("toxicity", "toxicity", "toxic", "low", "Answers with rude or toxic wording."),
    Metric("mean_tokens", "mean tokens", "tok.", None, "Mean length of an answer to a harmless prompt. Longer is not better."),
    Metric("kl", "KL", "KL", None, "How far the model has moved from SFT: log-ratio summed over an answer, at temperature 1."),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}

# Facts by what fine-tuning has seen; both people and facts always stand in the corpus.
FACTS_2X2 = re.compile(r"facts_(seen|unseen)_person_(seen|unseen)_phrasing")


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
    name = checkpoint["name"].lower()
    if name.startswith("always") or checkpoint.get("path") is None:
        return "constant"
    return "control" if "control" in name or "clean" in name else "trained"


KINDS = ("trained", "control", "constant")  # the order of a table's groups


def grouped(checkpoints: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The main line first, then control arms, then constant policies."""
    return sorted(checkpoints, key=lambda checkpoint: KINDS.index(kind_of(checkpoint)))


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


def before(results: dict[str, Any]) -> dict[str, Any] | None:
    """What the last version is compared with: SFT; or the base, where that was a chat model already (a fetched one)."""
    fetched = (results.get("settings") or {}).get("fetch")
    return by_name(results["checkpoints"], "base" if fetched else "sft")


def columns(checkpoints: list[dict[str, Any]]) -> list[Metric]:
    """The metrics that at least one checkpoint has; a column of dashes tells nobody anything."""
    return [metric for metric in METRICS if any(figure(checkpoint, metric.name) for checkpoint in checkpoints)]


def best_names(checkpoints: list[dict[str, Any]], metric: Metric) -> set[str]:
    """Names of the trained checkpoints with the best value, all of them on a tie; nobody if there is no contest."""
    scored = {c["name"]: value(c, metric.name) for c in trained(checkpoints)}
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


def plain(value: Any) -> str:
    """A figure of results.json, or any value, as a table's cell."""
    if isinstance(value, dict) and "value" in value:
        around = interval(value)
        return shown(value) + (f" ({around})" if around else "")
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return DASH if value is None else str(value)


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


def file_size(amount: float) -> str:
    """Of files, in decimal units as disks count: 820 B, 3.4 MB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount:.0f} B"


def headline(run: Run) -> list[str]:
    """What happened, in plain sentences made of the figures."""
    line, first = trained(run.checkpoints), before(run.results)
    last = line[-1] if line else None
    if last is None:
        return []
    sentences = []
    if first is not None and last is not first:
        sentences += [
            _facts(first, last), _win(last), _change(first, last, "gold_overlap", "Overlap with reference answers"),
            _change(first, last, "violation", "Harmful answers to adversarial prompts"),
            _change(first, last, "false_refusal", "Refusals of harmless prompts"),
            _change(first, last, "truthful", "Truthful answers where a myth is popular"), _length(first, last),
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


def _facts(first: dict[str, Any], last: dict[str, Any]) -> str:
    old, after = figure(first, "facts_right"), figure(last, "facts_right")
    if old is None or after is None:
        return ""
    return f"{last['name']} answers {_percent(after)} of the held-out questions of fact right; {first['name']} answers {_percent(old)}."


def _win(last: dict[str, Any]) -> str:
    found = figure(last, "helpful_win_vs_sft")
    if found is None:
        return ""
    verdict = "which the interval cannot tell from an even match"
    if found.get("low") is not None and found["low"] > 0.5:
        verdict = "better beyond the interval"
    elif found.get("high") is not None and found["high"] < 0.5:
        verdict = "worse beyond the interval"
    return f"On {found['n']} prompts {last['name']} beats SFT in {_percent(found)} by helpfulness, {verdict}."


def _change(first: dict[str, Any], last: dict[str, Any], metric: str, subject: str) -> str:
    old, after = figure(first, metric), figure(last, metric)
    if old is None or after is None:
        return ""
    verb = "fell" if after["value"] < old["value"] else "rose" if after["value"] > old["value"] else "stayed"
    if verb == "stayed":
        return f"{subject} stayed at {_percent(after)}."
    return f"{subject} {verb} from {_percent(old)} at {first['name']} to {_percent(after)}."


def _length(first: dict[str, Any], last: dict[str, Any]) -> str:
    old, after = value(first, "mean_tokens"), value(last, "mean_tokens")
    if not old or after is None:
        return ""
    change = 100 * (after / old - 1)
    if round(abs(change)) == 0:
        return f"Answers are as long as {first['name']}’s ({after:.1f} tokens)."
    return f"Answers are {abs(change):.0f}% {'longer' if change > 0 else 'shorter'} than {first['name']}’s ({old:.1f} → {after:.1f} tokens)."


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
        f"Picking the best of {last['k']} SFT answers by ground truth would reach {100 * last['value']:.1f}% "
        f"(best of {first['k']}: {100 * first['value']:.1f}%): the ceiling of any reward model that picks."
    )
