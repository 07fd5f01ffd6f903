"""Programs that a model wrote, run where they can do no harm: no network, no writing, no other program, little memory and time.

A process of its own with an empty environment and folder; in it, before the program begins: user, network, IPC and process
namespaces (no network device, no sight of other processes), Landlock (no file written, made, removed or executed), rlimits. Linux
alone has these; elsewhere, and where the kernel forbids them, nothing is run. Files can be read, but nothing can leave.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["passed", "failed", "timeout"]
JAIL = Path(__file__).with_name("jail.py")
NO_JAIL = 77  # exit code of jail.py where the kernel refused


@dataclass(frozen=True)
class Limits:
    seconds: float = 5.0  # of the clock, and of the processor
    memory_bytes: int = 1 << 30


def run_program(program: str, limits: Limits | None = None) -> Outcome:
    """Runs a Python program to its end. "passed": it got there without an exception; leaving early by `exit()` is not the end.

    ValueError where this machine offers no sandbox: a model's program is never run without one.
    """
    limits = limits or Limits()
    token = secrets.token_hex(16)  # what the jail says when the program has come to its end
    settings = f"{token} {math.ceil(limits.seconds)} {limits.memory_bytes}\n"
    with tempfile.TemporaryDirectory(prefix="ayni-jail-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(JAIL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            said, problem = process.communicate(
                (settings + program).encode("utf-8", "replace"), timeout=limits.seconds + 2
            )
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            _kill(process)
    if process.returncode == NO_JAIL:
        raise ValueError(
            f"programs that a model writes are run in a sandbox only, and this machine offers none ({problem.decode().strip()}); "
            "it takes Linux 5.19 or later with Landlock and user namespaces"
        )
    if process.returncode == 0 and said.decode("utf-8", "replace").strip().endswith(token):
        return "passed"
    out_of_time = {sign for kind in (signal.SIGXCPU, signal.SIGKILL) for sign in (-kind, 128 + kind)}  # either may come
    return "timeout" if process.returncode in out_of_time else "failed"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole session; the jail's own processes die with their first (a process namespace)."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def pass_at_k(n: int, c: int, k: int) -> float:
    """pass@k of n samples with c right ones, unbiased (Chen et al. 2021):  1 - C(n - c, k) / C(n, k)."""
    assert 0 <= c <= n >= k >= 1, f"pass@{k} of {c} right among {n}"
    return 1 - math.comb(n - c, k) / math.comb(n, k)
