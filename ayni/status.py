"""What a run says on disk while it works, for whoever watches it: `.status.json` in the run's directory.

    {"stage": "base", "title": "Pretraining", "since": 1732496000.0, "pid": 4711, "host": "box", "finished": false,
     "bars": [{"name": "pretraining", "done": 2048, "total": 40000, "unit": "tokens", "line": "2048/40k tokens, ..."}]}

It is replaced whole, at most once a second, and never read by the run itself: losing it loses nothing, so a disk that
is full does not stop a run here.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FILE = ".status.json"
EVERY = 1.0  # seconds between two writes while a bar moves

_at_work: tuple[Path, dict[str, Any]] | None = None
_written = 0.0


@contextmanager
def stage(run_dir: Path, name: str, title: str) -> Iterator[None]:
    """While the block runs, `run_dir` says that the stage building `run_dir/name` is at work."""
    global _at_work  # noqa: PLW0603 - one process works at one stage
    before = _at_work
    _at_work = (Path(run_dir), {"stage": name, "title": title, "since": time.time()})
    show_bars([], now=True)
    try:
        yield
    finally:
        _at_work = before


def show_bars(bars: list[dict[str, Any]], now: bool = False) -> None:
    """The progress bars that are open at this moment, written if the last write is a second ago (or `now`)."""
    global _written  # noqa: PLW0603
    if _at_work is None or (not now and time.monotonic() - _written < EVERY):
        return
    _written = time.monotonic()
    directory, about = _at_work
    _write(directory, {**about, "finished": False, "bars": bars})


def finish(run_dir: Path) -> None:
    """The run is through: results and report stand."""
    _write(Path(run_dir), {"finished": True, "bars": []})


def read(run_dir: Path) -> dict[str, Any]:
    """What the run says of itself, {} where it says nothing (an older run, a stage run alone)."""
    try:
        found = json.loads((Path(run_dir) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def alive(found: dict[str, Any]) -> bool:
    """False if the process that wrote `found` is known to be gone; one on another host is taken to be at work."""
    if not found.get("pid") or found.get("host") != platform.node():
        return True
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(directory: Path, found: dict[str, Any]) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    temporary = directory / f"{FILE}.tmp"
    with suppress(OSError):
        temporary.write_text(json.dumps({**found, "pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        temporary.replace(directory / FILE)
