"""Results that outlive a killed process: one JSON line each, by the hash of what was asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

Result = Any  # what JSON can hold


class Memory:
    """Results by the hash of their request, one JSON line each; a torn last line (the process was killed) is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Result] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) < len(lines):
            path.write_bytes(b"".join(whole))
        for number, line in enumerate(whole, 1):
            try:
                row = json.loads(line)
                self.known[row["key"]] = row["result"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(f"{path}, line {number}: not a saved result; delete the file to begin anew") from None

    def add(self, results: dict[str, Result]) -> None:
        with self.path.open("a", encoding="utf-8") as out:
            for key, result in results.items():
                out.write(json.dumps({"key": key, "result": result}, ensure_ascii=False) + "\n")
        self.known |= results


def key_of(question: Any) -> str:
    """The hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(question, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()
