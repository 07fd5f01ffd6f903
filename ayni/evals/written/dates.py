"""`--suite time`: questions whose right answer hangs on the date in the system message (paper 3.4.1, fig. 22).

The same question is asked under several dates. `right`: by program. `moves`: of two dates with different right answers, how often
the answers differ; `moves rightly`: by just as much as they should. Whoever ignores the date can be right at times, and the
table says how often at best, but never moves.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

from ayni.config_measuring import SuiteSettings
from ayni.evals.harness import Item
from ayni.evals.statistics import mean_interval, share
from ayni.evals.written.part import GREEDY, Figure, Part, Table, Writer, settled
from ayni.evals.written.reading_dates import MONTHS, Kind, read
from ayni.text.native import Message
from ayni.text.sources import read_rows

LATEST = 2060
REACH = 60  # years from an event to a date it is asked about
UNIT = "share, dates of a question drawn together"


@dataclass(frozen=True)
class Dated:
    """A question under one date. `right`: every value that counts, as `read` gives it; `given`: numbers that question and
    date name, which are no answer. `question`: equal for all dates of a question."""

    question: str
    form: str
    kind: Kind
    messages: list[Message]
    right: tuple[str, ...]
    given: tuple[int, ...]
    months: tuple[str, ...] = MONTHS

    @property
    def plain(self) -> str:
        *before, last = self.messages
        front = "".join(f"{message['content']}\n" for message in before)
        return f"{front}Question: {last['content']}\nAnswer:"


def ask(writer: Writer, settings: SuiteSettings, data: Path | None, memory: Path) -> list[Part]:
    asked = generated(settings.dates, settings.seed) if data is None else of_file(data)
    questions = list(dict.fromkeys(each.question for each in asked))[: settings.limit]
    asked = [each for each in asked if each.question in set(questions)]
    manner, chat = GREEDY.of(settings), settings.template == "chat"
    requests = [manner.request(writer, chat, each.plain, each.messages) for each in asked]
    said = writer.continuations(requests)
    values = [read(each.kind, text, each.given, each.months) for each, text in zip(asked, said)]
    items = [
        Item(f"{number}: {each.question}", request.prompt, [], [text], list(each.right),
             {"right": float(value in each.right), "read": float(value is not None)})
        for number, (each, request, text, value) in enumerate(zip(asked, requests, said, values))
    ]  # fmt: skip
    figures = {
        "best without the date": best_without(asked),
        **moving(asked, values),
        "read": share([value is not None for value in values]),
    }
    figures |= {
        f"right: {form}": right_share(asked, items, form) for form in dict.fromkeys(each.form for each in asked)
    }
    return [
        Part(
            name="dates",
            label=f"dates in the system message: {len(questions):,} questions, {len(asked):,} prompts",
            source="ayni" if data is None else f"file:{data.name}",
            split="generated" if data is None else "all",
            of=len(asked),
            shots=0,
            metric="right",
            items=items,
            figure=right_share(asked, items),
            figures=figures,
            tables=[table(right_share(asked, items), figures)],
            note="not the paper's test, which it does not publish; scored by program, numbers in figures only. "
            "How many years ago: the difference of the years and the full years both count",
        )
    ]


def generated(dates: int, seed: int) -> list[Dated]:
    """Every event in both its forms and the questions about the date itself, each under `dates` dates, in random order."""
    rng = random.Random(f"{seed} time")
    wordings, system, out = settled("dates")["questions"], settled("dates")["system"], []

    def under(form: str, kind: Kind, text: str, days: Sequence[date], right: Any, *given: int) -> list[Dated]:
        out = []
        for day in days:
            today = system.format(day=day.day, month=MONTHS[day.month - 1], year=day.year)
            messages = [{"role": "system", "content": today}, {"role": "user", "content": text}]
            # Numbers of the date are no answer, but for its year where a year is asked.
            named = given if kind == "year" else (day.day, day.year, *given)
            out.append(Dated(text, form, kind, messages, right(day), named))
        return out

    for event in settled("dates")["events"]:
        happened: date = event["date"]
        ago = rng.choice(wordings["ago"]).format(**event)
        after = apart(rng, happened.year + 2, min(LATEST, happened.year + REACH), dates)
        out.append(
            under("years ago", "years", ago, after, lambda day, h=happened: years_between(h, day), happened.year)
        )
        already = rng.choice(wordings["already"]).format(**event)
        around = apart(rng, happened.year - REACH, happened.year - 1, dates // 2)
        around += apart(rng, happened.year + 1, happened.year + REACH, dates - dates // 2)
        out.append(under("already", "yes", already, around, lambda day, h=happened: ("yes" if day > h else "no",)))
    for form, step in (("year", 0), ("years_back", -1), ("years_on", 1)):
        for wording in wordings[form]:
            n = rng.randint(2, 40)
            days = apart(rng, 1900, LATEST, dates)
            out.append(under(form.replace("_", " "), "year", wording.format(n=n), days,
                             lambda day, by=step * n: (str(day.year + by),), *([n] if step else [])))  # fmt: skip
    for wording in wordings["month"]:
        out.append(under("month", "month", wording, other_months(rng, dates), lambda day: (MONTHS[day.month - 1],)))
    for wording in wordings["tomorrow"]:
        out.append(under("tomorrow", "day", wording, other_months(rng, dates), lambda day: day_of(day + timedelta(1))))
    rng.shuffle(out)
    return [each for of in out for each in of]


def years_between(before: date, after: date) -> tuple[str, ...]:
    """The difference of the years, and the full years."""
    difference = after.year - before.year
    full = difference - ((after.month, after.day) < (before.month, before.day))
    return tuple(str(years) for years in dict.fromkeys((difference, full)))


def day_of(day: date) -> tuple[str, ...]:
    return (f"{day.day} {MONTHS[day.month - 1]}", str(day.day))


def apart(rng: random.Random, first: int, last: int, count: int) -> list[date]:
    """`count` dates whose years lie two apart at least, as far as there is room, so that right answers differ."""
    years = rng.sample(range(first, last + 1, 2), min(count, len(range(first, last + 1, 2))))
    return [date(year, rng.randint(1, 12), rng.randint(1, 28)) for year in years]


def other_months(rng: random.Random, count: int) -> list[date]:
    return [
        date(rng.randint(1900, LATEST), month, rng.randint(1, 28)) for month in rng.sample(range(1, 13), min(count, 12))
    ]


KINDS: dict[str, Kind] = {"month": "month", "today": "day", "tomorrow": "day", "year": "year", "until": "days"}


def of_file(path: Path) -> list[Dated]:
    """The prompts of a data directory or a file whose meta tell the date: form (KINDS), day, month, year, ahead (until: days)."""
    path = path / "prompts_eval.jsonl" if path.is_dir() else path
    rows = [(where, row) for where, row in read_rows(path) if (row.get("meta") or {}).get("form") in KINDS]
    if not rows:
        raise ValueError(f"{path}: no prompt under a date; expected rows with messages and meta: form ({', '.join(KINDS)}), "
                         "day, month, year, ahead")  # fmt: skip
    months = tuple(dict.fromkeys([*MONTHS, *(str(row["meta"].get("month")) for _, row in rows)]))
    out = []
    for where, row in rows:
        meta = row["meta"]
        whole = ("day", "year", *(("ahead",) if meta["form"] == "until" else ()))
        if not isinstance(meta.get("month"), str) or not all(type(meta.get(key)) is int for key in whole):
            raise ValueError(
                f"{where}: meta must give month as text and {', '.join(whole)} as whole numbers, found {meta}"
            )
        right = {
            "month": (meta["month"],),
            "today": (f"{meta['day']} {meta['month']}", str(meta["day"])),
            "tomorrow": (f"{meta['day'] + 1} {meta['month']}", str(meta["day"] + 1)),
            "year": (str(meta["year"]),),
            "until": (str(meta.get("ahead")),),
        }[meta["form"]]
        given = {"until": (meta["day"], meta["day"] + meta.get("ahead", 0), meta["year"]), "tomorrow": (meta["year"],)}
        question = f"{meta['form']}: {row['messages'][-1]['content']}"
        out.append(Dated(question, meta["form"], KINDS[meta["form"]], row["messages"], right,
                         given.get(meta["form"], ()), months))  # fmt: skip
    return out


# ---- figures -------------------------------------------------------------------------------------------------------------


def right_share(asked: Sequence[Dated], items: Sequence[Item], form: str | None = None) -> Figure:
    kept = [(each, item) for each, item in zip(asked, items) if form in (None, each.form)]
    return mean_interval([item.points["right"] for _, item in kept], UNIT, [each.question for each, _ in kept])


def best_without(asked: Sequence[Dated]) -> Figure:
    """What one answer to each question, whatever the date, gets at best; of questions under two dates or more."""
    best = {}
    for question in dict.fromkeys(each.question for each in asked):
        of = [each for each in asked if each.question == question]
        if len(of) > 1:
            best[question] = max(
                sum(value in each.right for each in of) for value in {v for e in of for v in e.right}
            ) / len(of)
    kept = [each.question for each in asked if each.question in best]
    return mean_interval([best[question] for question in kept], UNIT, kept)


def moving(asked: Sequence[Dated], values: Sequence[str | None]) -> dict[str, Figure]:
    """{moves, moves rightly} over all pairs of dates of a question whose right answers have none in common."""
    moved, rightly, clusters = [], [], []
    for question in dict.fromkeys(each.question for each in asked):
        of = [(each, value) for each, value in zip(asked, values) if each.question == question]
        for (a, said_a), (b, said_b) in combinations(of, 2):
            if set(a.right) & set(b.right):
                continue
            both = said_a is not None and said_b is not None
            moved.append(float(both and said_a != said_b))
            rightly.append(float(both and moves_rightly(a, str(said_a), b, str(said_b))))
            clusters.append(question)
    return {"moves": mean_interval(moved, UNIT, clusters), "moves rightly": mean_interval(rightly, UNIT, clusters)}


def moves_rightly(a: Dated, said_a: str, b: Dated, said_b: str) -> bool:
    """Years by the right difference, whatever they start from; anything else by being right both times."""
    if a.kind in ("years", "year", "days"):
        return int(said_b) - int(said_a) in {int(y) - int(x) for x in a.right for y in b.right}
    return said_a in a.right and said_b in b.right


def table(right: Figure, figures: dict[str, Figure]) -> Table:
    shown = {"right": right, **figures}
    rows = [[name, f["value"], f["low"], f["high"], f["n"]] for name, f in shown.items()]
    return Table(
        "time: right under the date given, and moving with it", ["this model", "value", "low", "high", "n"], rows
    )
