"""`--suite bold`: sentiment of what a model writes about groups of people (paper 4.1, A.4.7, Tables 46 to 50).

BOLD's prompts are beginnings of Wikipedia sentences; VADER's compound score (-1 to 1) is taken of prompt and generation together.
A domain is a task, its groups the columns of a table.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from ayni.config_measuring import SuiteSettings
from ayni.evals.harness import Item
from ayni.evals.statistics import mean_interval, share
from ayni.evals.suites import label
from ayni.evals.written.part import SAFETY, Figure, Part, Row, Writer, by_group, settled
from ayni.scoring.sentiment import sentiment
from ayni.text.sources import read_rows

DROPPED = ("hinduism", "atheism")  # by the paper too: 12 and 29 prompts are too few for a mean
FULL = {"gender": 3204, "profession": 10195, "race": 7657, "religious_ideology": 639, "political_ideology": 1984}
UNIT = "VADER compound, -1 to 1"


def ask(writer: Writer, settings: SuiteSettings, data: Path, memory: Path) -> list[Part]:
    manner, chat = SAFETY.of(settings), settings.template == "chat"
    prompts, empty = read_prompts(data)
    drawn = draw(prompts, settings.limit, settings.seed)
    written = writer.continuations([manner.request(writer, chat, row["prompt"]) for row in drawn])
    items = {}
    for row, text in zip(drawn, written):
        whole = f"{row['prompt']} {text.strip()}".strip()
        points = {
            "sentiment": sentiment(whole),
            "prompt alone": sentiment(row["prompt"]),
            "empty": float(not text.strip()),
        }
        items[row["id"]] = Item(row["id"], row["prompt"], [], [text], row["group"], points)
    return [
        part(domain, [items[row["id"]] for row in drawn if row["domain"] == domain], prompts, empty, data)
        for domain in dict.fromkeys(row["domain"] for row in drawn)
    ]


def read_prompts(path: Path) -> tuple[list[Row], int]:
    """(rows with `domain`, `group`, `prompt`; how many prompts were empty). Groups too small for a mean are left out."""
    rows, empty = [], 0
    for number, (where, row) in enumerate(read_rows(path), 1):
        if not all(isinstance(row.get(key), str) for key in ("domain", "group", "prompt")):
            raise ValueError(f"{where}: expected domain, group and prompt as text, found {', '.join(row) or 'no keys'}")
        prompt = " ".join(row["prompt"].split())
        empty += not prompt
        if prompt and row["group"].lower() not in DROPPED:
            rows.append({"id": f"bold-{number}", "domain": row["domain"], "group": row["group"], "prompt": prompt})
    if not rows:
        raise ValueError(f"{path}: no prompt in it; expected rows with domain, group and prompt")
    return rows, empty


def draw(prompts: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """All prompts, or `limit` of each group, drawn at random; in the file's order."""
    if limit is None:
        return list(prompts)
    chosen: set[str] = set()
    for key in dict.fromkeys((row["domain"], row["group"]) for row in prompts):
        pool = [row["id"] for row in prompts if (row["domain"], row["group"]) == key]
        chosen.update(random.Random(f"{seed} bold {key}").sample(pool, min(limit, len(pool))))
    return [row for row in prompts if row["id"] in chosen]


def part(domain: str, items: list[Item], prompts: Sequence[Row], empty: int, data: Path) -> Part:
    paper = settled("paper")["bold"].get(domain, {"table": "Tables 46 to 50", "groups": [], "rows": {}})
    found = list(dict.fromkeys(str(item.gold) for item in items))
    groups = [group for group in paper["groups"] if group in found]
    groups += [group for group in found if group not in groups]
    figures = {group: mean_sentiment([item for item in items if item.gold == group]) for group in groups}
    alone = {group: mean_sentiment([item for item in items if item.gold == group], "prompt alone") for group in groups}
    place = {group: number for number, group in enumerate(paper["groups"])}
    others = [["prompts alone", *(figure["value"] for figure in alone.values())]]
    others += [
        [f"{model} (paper)", *(row[place[group]] if group in place else None for group in groups)]
        for model, row in paper["rows"].items()
    ]
    of = FULL.get(domain, sum(row["domain"] == domain for row in prompts))
    return Part(
        name=f"bold_{domain}",
        label=label(f"BOLD {domain}", len(items), of),
        source=f"file:{data.name}",
        split="all",
        of=of,
        shots=0,
        metric="sentiment",
        items=items,
        figure=mean_sentiment(items),
        figures={"says nothing": share([item.points["empty"] == 1.0 for item in items]),
                 "prompts alone": mean_sentiment(items, "prompt alone")} | figures,
        tables=[by_group("this model", f"mean sentiment, {domain} ({paper['table']}'s arrangement)", figures, others)],
        note=f"VADER of prompt and generation; {' and '.join(DROPPED)} are left out, as in the paper, for too few prompts; "
        "an annotator of the real-model recipe rewards this score, so of what it trained it says nothing independent"
        + (f"; {empty} empty prompts of the file are left out" if empty else ""),
        better="neither",
    )  # fmt: skip


def mean_sentiment(items: Sequence[Item], of: str = "sentiment") -> Figure:
    return mean_interval([item.points[of] for item in items], UNIT)
