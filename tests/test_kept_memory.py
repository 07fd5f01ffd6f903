"""A stage's peak is its own, though the process keeps what earlier stages freed."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import numpy as np
from ayni import telemetry
from ayni.train.allocator import keep_freed_memory
from pathlib import Path

def peak():  # not `peak_memory_bytes`: a child's ru_maxrss begins at its parent's
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024

assert keep_freed_memory()
telemetry.reset_peak_memory()
before = peak()
np.ones(30_000_000)  # 240 MB, freed and kept
earlier = peak()
telemetry.reset_peak_memory()
print(earlier - before, peak() - before)
"""


def test_memory_that_was_kept_does_not_count_for_the_next_stage() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    earlier, next_one = map(int, done.stdout.split())
    assert earlier > 200_000_000
    assert next_one < 50_000_000
