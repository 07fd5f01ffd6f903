"""One workload measured: its sides run in turn, ours, peer, peer, ours, ..., so that what the machine does hits all alike."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench import machine
from bench.choice import Chosen, choose, starter
from bench.process import THREADS
from bench.workload import Against, Facts, Side, Workload

ROOFLINE = Side("roofline", "roofline.py")
OF_THE_RUN = ("seconds", "work", "cost", "peak_memory")  # what every run's answer holds; the rest is the worker's own


def tell(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def measure(workload: Workload, logs: Path) -> Facts:
    """{"rows": [...], "roofline": {...}, "seconds": ...}; ValueError if the sides did not do the same work.

    BENCH_RUNS=1 in the environment makes a try-out: that many runs, no warm-up.
    """
    started = time.perf_counter()
    runs = int(os.environ.get("BENCH_RUNS") or 0)
    start = starter(workload, logs)
    sides = [*workload.sides, *([ROOFLINE] if workload.bound else [])]
    chosen: dict[str, Chosen] = {}
    with ExitStack() as stack:
        for side in sides:
            inherited = chosen[side.inherits].candidate if side.inherits else {}
            chosen[side.name] = choose(
                side, start, workload.run, inherited, lambda text: tell(f"{workload.name}: {text}")
            )
            stack.callback(chosen[side.name].worker.close)
        answers = interleaved(workload, chosen, runs or workload.runs, warm_up=not runs)
    if workload.check:
        workload.check({side.name: answers[side.name][-1] for side in workload.sides})
    roofline = best_of(answers["roofline"]) if workload.bound else {}
    rows = [row_of(workload, against, chosen, answers, roofline) for against in workload.peers]
    return {"rows": rows, "roofline": roofline, "seconds": time.perf_counter() - started}


def interleaved(workload: Workload, chosen: dict[str, Chosen], runs: int, warm_up: bool) -> dict[str, list[Facts]]:
    """Every side's answers, one list per side in the order of the rounds."""
    answers: dict[str, list[Facts]] = {name: [] for name in chosen}
    for nth in range(-1 if warm_up else 0, runs):
        for name, side in chosen.items():
            if nth < 0 and side.tried:
                continue  # it has run already
            facts = side.worker.ask({"run": {**workload.run, "nth": max(nth, 0), "warmup": nth < 0}})
            if nth < 0:
                continue
            answers[name].append(facts)
            if name != ROOFLINE.name:
                tell(f"{workload.name} {nth + 1}/{runs}: {name} {facts['work'] / facts['seconds']:.4g} {workload.unit}")
    return answers


def best_of(answers: list[Facts]) -> Facts:
    """The highest value of each peak: what the machine can do while this workload is measured."""
    peaks = [key for key, value in answers[0].items() if isinstance(value, float) and key not in OF_THE_RUN]
    return {key: max(facts[key] for facts in answers) for key in peaks}


def row_of(
    workload: Workload, against: Against, chosen: dict[str, Chosen], answers: dict[str, list[Facts]], roofline: Facts
) -> Facts:
    """One row of results.json: medians of the rates, and the median of the paired ratios."""
    ours, theirs = answers[workload.ours.name], answers[against.side.name]
    our_rates, their_rates = rates(ours), rates(theirs)
    ratio = median(mine / yours for mine, yours in zip(our_rates, their_rates, strict=True))
    memory = memory_ratio(ours, theirs)
    share = roofline_share(workload, ours, roofline)
    met = ratio >= against.goal and (
        against.memory_goal is None or (memory is not None and memory <= against.memory_goal)
    )
    return {
        "name": f"{workload.name}/{against.side.name}",
        "ours": median(our_rates),
        "peer": median(their_rates),
        "peer_name": against.side.name,
        "unit": workload.unit,
        "ratio": ratio,
        "goal": against.goal,
        "roofline_share": share,
        "ours_runs": our_rates,
        "peer_runs": their_rates,
        "met": met,
        "settings": settings_of(workload, against, chosen, ours[-1], theirs[-1]),
        "extra": {
            "say": workload.say,
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "code": machine.code_digest(),
            "bound": workload.bound,
            "roofline": roofline,
            "roofline_goal": workload.roofline_goal,
            "roofline_met": None
            if workload.roofline_goal is None or share is None
            else share >= workload.roofline_goal,
            "peak_memory_ours": median_memory(ours),
            "peak_memory_peer": median_memory(theirs),
            "memory_ratio": memory,
            "memory_goal": against.memory_goal,
            "ours_facts": own_facts(ours[-1]),
            "peer_facts": own_facts(theirs[-1]),
            "ours_tried": chosen[workload.ours.name].tried,
            "peer_tried": chosen[against.side.name].tried,
        },
    }


def rates(answers: list[Facts]) -> list[float]:
    return [facts["work"] / facts["seconds"] for facts in answers]


def median_memory(answers: list[Facts]) -> float | None:
    """Bytes; None where the system does not say."""
    found = [facts["peak_memory"] for facts in answers]
    return None if None in found else median(found)


def memory_ratio(ours: list[Facts], theirs: list[Facts]) -> float | None:
    mine, yours = median_memory(ours), median_memory(theirs)
    return mine / yours if mine and yours else None


def roofline_share(workload: Workload, ours: list[Facts], roofline: Facts) -> float | None:
    """Achieved FLOP/s (or bytes/s) over the machine's peak."""
    if workload.bound is None:
        return None
    return median(facts["cost"] / facts["seconds"] for facts in ours) / roofline[workload.bound]


def own_facts(facts: Facts) -> Facts:
    return {key: value for key, value in facts.items() if key not in OF_THE_RUN}


def settings_of(workload: Workload, against: Against, chosen: dict[str, Chosen], ours: Facts, theirs: Facts) -> str:
    """Both sides in words: what the definition says, what was chosen, what the worker itself adds."""

    def words(side: Side, facts: Facts) -> str:
        picked = ", ".join(f"{key}={value}" for key, value in chosen[side.name].candidate.items())
        return "; ".join(part for part in (side.settings, picked, facts.get("settings", "")) if part)

    return f"{THREADS} threads each. ayni: {words(workload.ours, ours)}. {against.side.name}: {words(against.side, theirs)}."
