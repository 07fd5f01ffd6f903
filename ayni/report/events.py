"""A run's metrics logs as TensorBoard event files. JSONL is what a run writes; these are made of it, at any time.

RUN/base/logs/metrics.jsonl   ->   DIR/base/events.out.tfevents.*.ayni    one TensorBoard "run" per stage
{"step": 7, "loss": 2.1, "perplexity": {"stories": 5.4}}   ->   scalars `loss`, `perplexity/stories` at step 7
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayni.telemetry import read_metrics

Row = dict[str, Any]
SUFFIX = ".ayni"  # marks the event files that are ours to replace
MISSING = "TensorBoard's event files need the package tensorboard: pip install 'ayni[tensorboard]'"


def logs(run_dir: Path) -> dict[str, Path]:
    """Stage -> its metrics log, of stages that are done and of the one at work (`.NAME.partial`)."""
    found = {}
    for path in sorted(Path(run_dir).glob("**/logs/metrics.jsonl")):
        *outer, name = path.relative_to(run_dir).parts[:-2] or ("run",)
        if name.startswith(".") and not name.endswith(".partial"):
            continue  # retired, about to be removed
        at_work = name.startswith(".")
        stage = "/".join([*outer, name.removeprefix(".").removesuffix(".partial") if at_work else name])
        if at_work or stage not in found:
            found[stage] = path
    return found


def scalars(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """(tag, figure) for every number in a row, nested ones under their key; `step` is the axis, not a figure."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (prefix or key != "step"):
            yield f"{prefix}{key}", float(value)


class EventFiles:
    """Event files under `directory`, one folder per stage; `follow` adds what the logs have gained since."""

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(MISSING) from None
        self._writer_of = SummaryWriter
        self.directory = Path(directory)
        self._writers: dict[str, Any] = {}
        self._written: dict[str, list[Row]] = {}

    def follow(self, run_dir: Path) -> dict[str, int]:
        """Stage -> rows in its event file now. A log that a resumed run has cut back is purged from there on."""
        for stage, path in logs(run_dir).items():
            try:
                rows = read_metrics(path)
            except OSError:  # published between the look and the reading: next time
                continue
            known = self._written.setdefault(stage, [])
            same = next((i for i, (a, b) in enumerate(zip(known, rows)) if a != b), min(len(known), len(rows)))
            if same < len(known):
                self._writers.pop(stage).close()
                self._open(stage, purge_step=int(known[same]["step"]))
            elif stage not in self._writers:
                for old in (self.directory / stage).glob(f"events.out.tfevents.*{SUFFIX}"):
                    old.unlink()
                self._open(stage)
            writer = self._writers[stage]
            for row in rows[same:]:
                for tag, figure in scalars(row):
                    writer.add_scalar(tag, figure, int(row["step"]))
            writer.flush()
            self._written[stage] = rows
        return {stage: len(rows) for stage, rows in self._written.items()}

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _open(self, stage: str, purge_step: int | None = None) -> None:
        where = str(self.directory / stage)
        self._writers[stage] = self._writer_of(where, purge_step=purge_step, filename_suffix=SUFFIX)


def convert(run_dir: Path, directory: Path) -> dict[str, int]:
    """Writes the event files of everything that the run has logged so far; stage -> rows."""
    if not logs(run_dir):
        raise ValueError(f"{run_dir}: no metrics log in it; give a run directory, or a stage's (logs/metrics.jsonl)")
    events = EventFiles(directory)
    try:
        return events.follow(run_dir)
    finally:
        events.close()
