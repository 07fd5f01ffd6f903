"""The harness's end of a worker: start it, ask it, stop it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

from bench.environments import OFFLINE, python
from bench.workload import BENCH, Facts

THREADS = 2
ANSWER_TIMEOUT = 1800  # seconds
LOG_TAIL = 800  # characters of a dead worker's log that go into the message
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "BENCH_THREADS")


class WorkerFailed(RuntimeError):
    """A worker died, did not answer in time, or answered with an error."""


def environment() -> dict[str, str]:
    """What all sides see: the same threads, no hub, and `bench.worker` importable."""
    threads = {name: str(THREADS) for name in THREAD_VARIABLES}
    path = {"PYTHONPATH": str(BENCH.parent), "TOKENIZERS_PARALLELISM": "true", "AYNI_QUIET": "1", "BENCH_WORKER": "1"}
    return {**os.environ, **OFFLINE, **threads, **path}


class Worker:
    """A process that answers one line of JSON for each line it is sent; what else it says goes to `log`."""

    def __init__(self, script: Path, interpreter: Path, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.name, self.log = script.stem, log
        with log.open("a") as said:
            self.process = subprocess.Popen(
                [str(interpreter), str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=BENCH.parent,
                env=environment(),
            )

    def ask(self, request: Facts) -> Facts:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(self._obituary("is dead")) from None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_TIMEOUT)
        if not ready:
            raise WorkerFailed(self._obituary(f"did not answer within {ANSWER_TIMEOUT} s"))
        line = self.process.stdout.readline()
        if not line:
            raise WorkerFailed(self._obituary("ended without an answer"))
        answer: Facts = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def _obituary(self, problem: str) -> str:
        return f"{self.name} {problem}; the end of {self.log}:\n{self.log.read_text(errors='replace')[-LOG_TAIL:]}"


def interpreter(name: str | None) -> Path:
    """The Python of a peer's environment (built if need be), or the one that runs this."""
    return python(name) if name else Path(sys.executable)
