"""Runs studies: every (study, seed, arm) is a job of its own, resumable, several at a time with one thread each.

    WORK/SCALE/seed-0/...                     the models, shared by all studies (lab.py)
    WORK/SCALE/outcomes/NAME/ARM-seed-0.json  what an arm gave; a job that finds it does nothing
    WORK/SCALE/logs/NAME-ARM-seed-0.log       what its stages said
    OUT/NAME/result.json                      claim, paper, ours, low, high, seeds, n, verdict, tables, series

One thread a job, whatever the machine: the same seeds give the same figures on one core or on many.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import content_hash, read_json, write_json
from ayni.studies import catalogue
from ayni.studies.lab import Lab, Scale, load_scale
from ayni.studies.paired import Outcomes
from ayni.studies.study import Conclusion, Outcome, Study

RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    study: str
    arm: str
    seed: int
    work: Path  # of the scale
    scale: Scale
    given: Mapping[str, Path] = field(default_factory=dict)

    @property
    def outcome(self) -> Path:
        return self.work / "outcomes" / self.study / f"{self.arm}-seed-{self.seed}.json"

    @property
    def log(self) -> Path:
        return self.work / "logs" / f"{self.study}-{self.arm}-seed-{self.seed}.log"


def run(
    names: Sequence[str],
    work: Path,
    out: Path,
    *,
    seeds: int = 3,
    scale: Scale = "full",
    jobs: int = 2,
    given: Mapping[str, Path] | None = None,
) -> list[Path]:
    """Runs the studies called `names` and writes OUT/NAME/result.json for each; returns these files.

    `given`: the user's "model" and "preferences", for studies of real data. ValueError for an unknown name, for a study that
    needs what is not given, or if an arm failed (its log is named; the arms that are done stay done).
    """
    if seeds < 1 or jobs < 1:
        raise ValueError(f"a study needs one seed and one job at least, got seeds {seeds} and jobs {jobs}")
    studies = [catalogue.study(name) for name in names]
    given = given or {}
    for study in studies:
        if missing := [f"--{name}" for name in study.needs if name not in given]:
            raise ValueError(f"study {study.name} runs on real data of yours: give {' and '.join(missing)}")
    todo = []
    for study in studies:
        needed = {name: given[name] for name in study.needs}
        place = place_of(work, scale, needed)
        todo += [Job(study.name, arm, seed, place, scale, needed) for arm in study.arms for seed in range(seeds)]
    seconds = carry_out([job for job in todo if not job.outcome.is_file()], jobs)
    written = []
    for study in studies:
        mine = [job for job in todo if job.study == study.name]
        outcomes = Outcomes(
            {arm: {job.seed: read_outcome(job) for job in mine if job.arm == arm} for arm in study.arms}
        )
        conclusion = study.conclude(outcomes)
        path = out / study.name / RESULT
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path, result_of(study, conclusion, seeds, scale, sum(read_json(job.outcome)["seconds"] for job in mine))
        )
        written.append(path)
    if seconds:
        telemetry.say(f"{len(seconds)} arms in {telemetry.clock(sum(seconds))} of work")
    return written


def place_of(work: Path, scale: Scale, given: Mapping[str, Path]) -> Path:
    """Where models and outcomes lie: each choice of the user's files has a place of its own."""
    if not given:
        return work / scale
    told = json.dumps({name: content_hash(path) for name, path in given.items()}, sort_keys=True)
    return work / f"{scale}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"


def carry_out(todo: Sequence[Job], workers: int) -> list[float]:
    """Seconds of every job, `workers` at a time. Nothing more is started after a failure; what is done stays done."""
    done: list[float] = []
    if not todo:
        return done
    with telemetry.progress("studies", len(todo), "arms") as bar, _pool(min(workers, len(todo))) as pool:
        asked: dict[Future[float], Job] = {pool.submit(carry_out_one, job): job for job in todo}
        for future in as_completed(asked):
            job = asked[future]
            try:
                done.append(future.result())
            except (Exception, BrokenProcessPool) as error:
                pool.shutdown(cancel_futures=True)
                raise ValueError(
                    f"study {job.study}, arm {job.arm}, seed {job.seed} failed: {error}; see {job.log}. "
                    "The same command goes on with the arms that are left"
                ) from error
            bar.advance(1, study=job.study, arm=job.arm, seed=job.seed)
    return done


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes (spawned, with one thread each)."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def carry_out_one(job: Job) -> float:
    """Makes the job's models, measures, and publishes its outcome; returns the seconds it took."""
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log, telemetry.told_to(log):
        lab = Lab(job.work / f"seed-{job.seed}", job.seed, job.scale, load_scale(job.scale), job.given)
        outcome = catalogue.study(job.study).measure(lab, job.arm)
    seconds = time.monotonic() - started
    job.outcome.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.outcome, {**asdict(outcome), "seconds": round(seconds, 1)})
    return seconds


def read_outcome(job: Job) -> Outcome:
    """An arm's outcome from its file."""
    found = read_json(job.outcome)
    return Outcome(found["values"], found["facts"])


def result_of(study: Study, conclusion: Conclusion, seeds: int, scale: Scale, seconds: float) -> dict[str, Any]:
    """`result.json`: the headline on top, every effect, the table, and the series of the figure."""
    headline = conclusion.effects[0]
    result = {
        "study": study.name,
        "group": study.group,
        "claim": study.claim,
        "paper": study.paper,
        "method": study.method,
        "ours": headline.value,
        "low": headline.low,
        "high": headline.high,
        "unit": headline.unit,
        "seeds": seeds,
        "n": headline.n,
        "verdict": conclusion.verdict,
        "effects": [{**asdict(effect), "verdict": effect.verdict} for effect in conclusion.effects],
        "table": {"columns": list(conclusion.columns), "rows": [list(row) for row in conclusion.rows]},
        "panels": [asdict(panel) for panel in conclusion.panels],
        "remarks": list(conclusion.remarks),
        "scale": scale,
        "seconds_of_work": round(seconds),
    }
    rounded: dict[str, Any] = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 5))
    return rounded
