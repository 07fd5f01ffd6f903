"""The sides of a workload as running workers, each with the settings that are its fastest."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.process import Worker, WorkerFailed, interpreter
from bench.workload import BENCH, Facts, Side, Workload

Start = Callable[[Side, Facts], Worker]


@dataclass(frozen=True)
class Chosen:
    """A worker that is ready, the candidate it runs with, and what the others did: [{candidate, rate or error}]."""

    worker: Worker
    candidate: Facts
    tried: list[Facts]


def starter(workload: Workload, logs: Path) -> Start:
    """A function that starts a side's process and sets it up with the workload's inputs and the candidate's settings."""
    inputs = workload.inputs()

    def start(side: Side, candidate: Facts) -> Worker:
        log = logs / f"{workload.name}-{side.name}.log"
        worker = Worker(BENCH / side.script, interpreter(side.environment), log)
        try:
            worker.ask({"setup": {**inputs, **side.setup, **candidate}})
        except BaseException:
            worker.close()
            raise
        return worker

    return start


def choose(side: Side, start: Start, run: Facts, inherited: Facts, tell: Callable[[str], object]) -> Chosen:
    """Tries every candidate (one warm-up, one run) and keeps the fastest; a candidate that fails is only reported.

    WorkerFailed if none worked. With one candidate and none beside there is nothing to try.
    """
    candidates = [{**inherited, **candidate} for candidate in side.candidates]
    beside = [] if os.environ.get("BENCH_RUNS") else [{**inherited, **candidate} for candidate in side.beside]
    if len(candidates) == 1 and not beside:
        return Chosen(start(side, candidates[0]), candidates[0], [])
    tried: list[Facts] = []
    best: tuple[float, Worker, Facts] | None = None
    for candidate in candidates + beside:
        rate, worker, problem = _try(side, start, run, candidate)
        tell(f"{side.name} {candidate}: {problem or f'{rate:.4g}'}")
        beaten = candidate in beside or worker is None or (best is not None and rate <= best[0])
        tried.append({"candidate": candidate, "eligible": candidate not in beside} | _outcome(rate, problem))
        if beaten and worker:
            worker.close()
        elif worker:
            if best:
                best[1].close()
            best = (rate, worker, candidate)
    if best is None:
        raise WorkerFailed(f"{side.name}: no candidate worked: {tried}")
    return Chosen(best[1], best[2], tried)


def _try(side: Side, start: Start, run: Facts, candidate: Facts) -> tuple[float, Worker | None, str]:
    worker = None
    try:
        worker = start(side, candidate)
        worker.ask({"run": {**run, "nth": 0, "warmup": True}})
        facts = worker.ask({"run": {**run, "nth": 0, "warmup": False, "trial": True}})  # a part of it may do
    except WorkerFailed as error:
        if worker:
            worker.close()
        return 0.0, None, str(error).strip().splitlines()[-1]
    return facts["work"] / facts["seconds"], worker, ""


def _outcome(rate: float, problem: str) -> Facts:
    return {"error": problem} if problem else {"rate": rate}
