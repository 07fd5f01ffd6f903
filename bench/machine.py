"""What the figures were measured on."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.environments import cpu_flags
from bench.process import THREADS
from bench.workload import BENCH, Facts

WANTED_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


def facts() -> Facts:
    flags = cpu_flags()
    return {
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": THREADS,
        "flags": {flag: flag in flags for flag in WANTED_FLAGS},
        "memory_gib": round(int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _line(path: str, key: str) -> str:
    if not Path(path).exists():
        return ""
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def code_digest() -> str:
    """Of the package's sources: a row measured on other code than the newest row's says so."""
    digest = hashlib.sha256()
    for path in sorted((BENCH.parent / "ayni").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
