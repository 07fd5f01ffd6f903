"""Finished workloads on disk, so that a bench which was stopped goes on where it stood."""

from __future__ import annotations

import json
from pathlib import Path

from bench.workload import Facts, Workload


class State:
    """A folder with one file per finished workload, named by the digest of its definition."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def path(self, workload: Workload) -> Path:
        return self.folder / f"{workload.name}-{workload.digest()}.json"

    def read(self, workload: Workload) -> Facts | None:
        path = self.path(workload)
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, workload: Workload, finished: Facts) -> None:
        publish(self.path(workload), json.dumps(finished, indent=1))

    def forget(self, workload: Workload) -> None:
        self.path(workload).unlink(missing_ok=True)


def publish(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
