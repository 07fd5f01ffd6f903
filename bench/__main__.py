"""Measures row by row what is not measured yet, and writes results.json and RESULTS.md.

.venv/bin/python -m bench --list | --only NAME | --fresh | --report
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.measure import measure, tell
from bench.process import WorkerFailed
from bench.report import write_results, write_table
from bench.rows import workloads
from bench.state import State
from bench.workload import BENCH, Workload


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 if a workload could not be measured (the others are), or 2 for a wrong argument."""
    options = parsed(arguments)
    try:
        return bench(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Ayni beside what a user would pick instead.")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="this workload alone (see --list); may be repeated"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    parser.add_argument("--list", action="store_true", help="name the workloads, their peers, and what is measured")
    parser.add_argument("--report", action="store_true", help="only draw RESULTS.md from results.json again")
    parser.add_argument("--out", type=Path, default=BENCH, help="where the files go (default: bench/)")
    return parser.parse_args(arguments)


def bench(options: argparse.Namespace) -> int:
    if options.report:
        tell(f"written: {write_table(options.out)}")
        return 0
    known = workloads()
    state = State(options.out / ".state")
    if options.list:
        print_list(known, state)
        return 0
    refuse_try_out(options.out)
    failed = [workload.name for workload in selected(known, options.only) if not finish(workload, state, options.fresh)]
    results = write_results(options.out, known, state)
    tell(f"written: {write_table(options.out)}; {sum(row['met'] for row in results['rows'])} goals met")
    if failed:
        tell(f"NOT MEASURED, see above: {', '.join(failed)}")
    return 1 if failed else 0


def refuse_try_out(out: Path) -> None:
    """Figures of a shortened run must never stand where the real ones belong."""
    shortened = [name for name in ("BENCH_RUNS", "BENCH_TINY") if os.environ.get(name)]
    if shortened and out.resolve() == BENCH.resolve():
        raise ValueError(f"{' and '.join(shortened)} makes this a try-out: give --out FOLDER, or unset it")


def selected(known: list[Workload], only: list[str] | None) -> list[Workload]:
    if not only:
        return known
    names = [workload.name for workload in known]
    for name in only:
        if name.split("/")[0] not in names:
            raise ValueError(f"--only {name}: no such workload; known: {', '.join(names)}")
    wanted = {name.split("/")[0] for name in only}
    return [workload for workload in known if workload.name in wanted]


def finish(workload: Workload, state: State, fresh: bool) -> bool:
    """True once the workload is in the state; a failure is told and leaves the other workloads alone."""
    if fresh:
        state.forget(workload)
    if state.read(workload):
        tell(f"{workload.name}: measured already")
        return True
    tell(f"{workload.name}: {workload.say}")
    try:
        measured = measure(workload, state.logs)
    except (WorkerFailed, ValueError) as error:
        tell(f"{workload.name} FAILED: {error}")
        return False
    state.write(workload, measured)
    for row in measured["rows"]:
        tell(f"{row['name']}: {row['ratio']:.2f}x (goal {row['goal']:g}x, {'met' if row['met'] else 'not met'})")
    return True


def print_list(known: list[Workload], state: State) -> None:
    for workload in known:
        done = "measured" if state.read(workload) else "to do"
        print(f"{workload.name:16} {done:9} {', '.join(f'{a.side.name} (>= {a.goal:g}x)' for a in workload.peers)}")


if __name__ == "__main__":
    sys.exit(main())
