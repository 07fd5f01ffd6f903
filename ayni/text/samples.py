"""Evaluation samples and training documents as text: one rule for both, so that they can be matched (paper A.6).

A row with `text` is that text. Of any other row the parts in PARTS are taken in that order, each on a line of its own:
texts as they are, lists item by item, messages by their contents, `{"text": [...]}` (ARC's options) by its items.
What a benchmark adds around its parts (letters of options, "Question:", few-shot examples) is not known here: to match
what the model was really asked, give the verbalised prompt and its gold answer under `text`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.text.sources import ROW_SUFFIXES, Row, plain_documents, read_rows, text_files

PARTS = (
    "system", "instruction", "context", "passage", "messages", "prompt", "question", "query", "ctx", "input",
    "options", "choices", "endings", "completion", "chosen", "rejected", "response", "output", "answer", "answers",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One evaluation sample: its `id`, or FILE-NUMBER where the row has none."""

    id: str
    text: str


def verbalised(row: Row, where: str) -> str:
    """A row's text by the rule above. ValueError where it has none."""
    if isinstance(row.get("text"), str):
        return row["text"]
    parts = [part for key in PARTS for part in _texts(row.get(key))]
    if not any(part.strip() for part in parts):
        found = ", ".join(row) if row else "no keys"
        raise ValueError(f"{where}: expected the key text, or at least one of {', '.join(PARTS)}; found {found}")
    return "\n".join(parts)


def _verbalised(placed: tuple[str, Row]) -> str:
    where, row = placed
    return verbalised(row, where)


def _texts(value: Any) -> Iterator[str]:
    """The texts inside a part. Numbers that stand for an option (`"answer": 2`) say nothing and are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(value.get("content", value.get("text")))


def read_samples(file: Path) -> list[Sample]:
    """The samples of one file in order. ValueError where two have one id."""
    samples, known = [], set()
    for number, (where, row) in enumerate(read_rows(file), 1):
        name = str(row["id"]) if row.get("id") is not None else f"{file.name.split('.')[0]}-{number}"
        if name in known:
            raise ValueError(f"{where}: the id {name!r} occurs twice; scores could not be told apart")
        known.add(name)
        samples.append(Sample(name, verbalised(row, where)))
    if not samples:
        raise ValueError(f"{file}: no samples in it; expected at least one row")
    return samples


def read_training(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """(file, document) of every training file: texts as a corpus has them, chats and prompts by the rule above."""
    empty = True
    for file in (file for path in paths for file in text_files(path)):
        rows = file.name.endswith(ROW_SUFFIXES)
        for text in map(_verbalised, read_rows(file)) if rows else plain_documents(file):
            if text.strip():
                empty = False
                yield file, text
    if empty:
        raise ValueError(f"{', '.join(map(str, paths))}: no training text in it; expected at least one document")
