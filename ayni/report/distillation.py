"""Context distillation's figures: what was sampled and kept, and the safety reward before and after, by risk category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import read_json

SUMMARY = "summary.json"
COLUMNS = ("risk category", "sampled", "kept", "original", "under the preprompt", "after the gate")


def show(out: Path) -> None:
    telemetry.table(list(COLUMNS), rows(read_json(out / SUMMARY)))


def rows(summary: dict[str, Any]) -> list[list[Any]]:
    """A row for each risk category and one for all: counts, and mean safety scores."""
    found = {name.replace("_", " ") or "not given": of for name, of in summary["categories"].items()}
    return [
        [name, of["sampled"], of["kept"], *(f"{of[key]:.2f}" for key in ("original", "distilled", "after"))]
        for name, of in [*found.items(), ("all", summary)]
    ]


def tables(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A table for each version of results.json that was distilled."""
    return [
        {"name": version["name"], "columns": COLUMNS, "rows": rows(version["distillation"]["summary"])}
        for version in results.get("versions") or []
        if version.get("distillation")
    ]
