"""What every part of a suite that is answered freely has in common: who writes, what came of it, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import yaml

from ayni.config_measuring import SuiteSettings
from ayni.evals.answering import Continue
from ayni.evals.harness import Item
from ayni.evals.suites import Better
from ayni.text.native import Message
from ayni.text.sources import read_jsonl

Figure = dict[str, Any]
Row = dict[str, Any]


class Writer(Protocol):
    """A model that continues prompts: `Answering`, or a stand-in."""

    def continuations(self, asked: Sequence[Continue]) -> list[str]: ...

    def dialogue(self, messages: Sequence[Message], is_open: bool = True) -> str: ...


@dataclass(frozen=True)
class Table:
    """A table in the paper's arrangement: the first column names models, cells are figures, numbers or text."""

    title: str
    columns: list[str]
    rows: list[list[Any]]

    def row(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class Part:
    """One task as it was asked. `of`: rows of the public set, `source` and `label` say what of it was used.

    `figures`: further ones by name, beside `figure`, the mean of `metric` over the items.
    """

    name: str
    label: str
    source: str
    split: str
    of: int
    shots: int
    metric: str
    items: list[Item]
    figure: Figure
    figures: dict[str, Figure] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    note: str = ""
    better: Better = "higher"


@dataclass(frozen=True)
class Manner:
    """How a part samples where the settings do not say (`temperature`, `top_p`, `max_new_tokens`)."""

    temperature: float
    top_p: float
    max_new_tokens: int

    def of(self, settings: SuiteSettings) -> Manner:
        return Manner(
            self.temperature if settings.temperature is None else settings.temperature,
            self.top_p if settings.top_p is None else settings.top_p,
            settings.max_new_tokens or self.max_new_tokens,
        )

    def request(self, writer: Writer, chat: bool, plain: str, messages: Sequence[Message] | None = None) -> Continue:
        """The rest of a line after plain text; with `chat` the whole answer to `messages` (None: the text as the user's turn)."""
        said = messages or [{"role": "user", "content": plain}]
        prompt, until = (writer.dialogue(said), ()) if chat else (plain, ("\n",))
        return Continue(prompt, until, self.max_new_tokens, self.temperature, self.top_p)


SAFETY = Manner(temperature=0.1, top_p=0.9, max_new_tokens=64)  # the paper's for its safety sets (4.1); length: silent
GREEDY = Manner(temperature=0.0, top_p=1.0, max_new_tokens=64)


def by_group(name: str, title: str, figures: dict[str, Figure], others: Sequence[list[Any]] = ()) -> Table:
    """Groups as columns (Tables 45 to 50): the model's value, its interval below, how many prompts; then `others`."""
    rows: list[list[Any]] = [[name, *(figure["value"] for figure in figures.values())]]
    for end in ("low", "high"):
        rows.append([f"  95% interval, {end}", *(figure[end] for figure in figures.values())])
    rows.append(["  prompts", *(figure["n"] for figure in figures.values())])
    return Table(title, ["model", *figures], [*rows, *others])


def rows_of_set(data: Path, name: str) -> list[Row]:
    """NAME.jsonl of a folder that `ayni fetch-evaldata` wrote."""
    path = data / f"{name}.jsonl"
    if not path.is_file():
        raise ValueError(
            f"{path}: not there; this suite reads a folder of `ayni fetch-evaldata`: run it (again), or leave --data out"
        )
    return read_jsonl(path)


@cache
def settled(name: str) -> Any:
    """NAME.yaml beside this file: what was written by hand (examples, events, the paper's figures)."""
    return yaml.safe_load((files("ayni.evals.written") / f"{name}.yaml").read_text(encoding="utf-8"))
