"""One side of a comparison, as a process of its own: line-JSON requests on standard input, line-JSON answers on standard output.

    {"setup": {...}} -> {"seconds": s}                                              once: import, load the model
    {"run": {...}}   -> {"seconds": s, "work": n, "peak_memory": bytes, ...facts}   as often as asked
    an error         -> {"error": "traceback"}

A worker's script calls `serve(load)`. This file imports the standard library alone, so that any environment can run it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
Run = Callable[[Facts], Facts]

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets VmHWM to the memory resident now


def serve(load: Callable[[Facts], Run]) -> None:
    """Answers requests until standard input ends. `load(setup)` returns the function that does one run.

    A run's answer must hold "work" (in the row's unit without "/s"); it may hold "seconds", else the whole call is timed.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not look like an answer
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            start = time.perf_counter()
            if "setup" in request:
                run = load(request["setup"])
                answer: Facts = {"seconds": time.perf_counter() - start}
            else:
                assert run is not None, "a run was asked for before the set-up"
                answer = timed(run, request["run"])
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


def timed(run: Run, request: Facts) -> Facts:
    """One run with its wall time in seconds and the peak of resident memory in bytes while it lasted."""
    reset_peak_memory()
    start = time.perf_counter()
    facts = run(request)
    return {"seconds": time.perf_counter() - start, **facts, "peak_memory": peak_memory()}


def reset_peak_memory() -> None:
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text(RESET_PEAK)


def peak_memory() -> int | None:
    """VmHWM in bytes; None where the system does not say."""
    if not STATUS.exists():
        return None
    lines = (line.split() for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return next((int(kilobytes) * 1024 for _, kilobytes, *_ in lines), None)
