from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from ayni.evals.written import dates
from ayni.evals.written.dates import generated, of_file, years_between
from ayni.evals.written.part import settled
from ayni.evals.written.reading_dates import read
from ayni.text.sources import write_jsonl
from ayni.world import examiner, prompts
from ayni.world.knowledge import World, values_of


def test_years_are_counted_day_by_day() -> None:
    """Full years, by walking from birthday to birthday."""
    start = date(1989, 11, 9)
    for after in (date(1991, 11, 8), date(1991, 11, 9), date(1991, 11, 10), date(2024, 3, 4), date(1990, 1, 1)):
        full, birthday = 0, start
        while (birthday := birthday.replace(year=birthday.year + 1)) <= after:
            full += 1
        found = {int(years) for years in years_between(start, after)}
        assert full in found
        assert found <= {full, full + 1}
        assert after.year - start.year in found


def perfect(prompt: str) -> str:
    """Knows every event; written apart from the generator, over the text alone."""
    day, month, year = re.search(r"Today is (\d+) (\w+) (\d+)\.", prompt).groups()
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    today = date(int(year), months.index(month) + 1, int(day))
    question = prompt.split("Question: ")[1].split("\nAnswer:", maxsplit=1)[0]
    for event in settled("dates")["events"]:
        if event["true"] in question:
            return " Yes." if today > event["date"] else " No, not yet."
        if event["did"] in question or event["past"] in question:
            return f" That was in {event['date'].year}, {today.year - event['date'].year} years ago."
    if "month is it" in question or "month are we" in question:
        return f" It is {month}."
    if "tomorrow" in question:
        next_day = today + timedelta(days=1)
        return f" After {day} comes {months[next_day.month - 1]} {next_day.day}."
    n = int(re.search(r"\d+", question)[0]) if re.search(r"\d+", question) else 0
    return f" It is {today.year + (n if 'will' in question or 'from now' in question else -n)}."


def test_who_knows_the_date_is_right_and_moves(scripted, settings) -> None:
    [part] = dates.ask(scripted(perfect), settings("time"), None, Path())
    assert {item.prompt: item.answers for item in part.items if not item.points["right"]} == {}
    assert part.figures["moves"]["value"] == part.figures["moves rightly"]["value"] == 1.0
    assert part.figures["best without the date"]["value"] < 0.6
    assert len(part.items) == 4 * part.figure["n"]


def test_who_ignores_the_date_never_moves_and_stays_below_the_best(scripted, settings) -> None:
    for constant in (" No.", " 50 years", " In May", " It is 5 May.", " 1999"):
        [part] = dates.ask(scripted(lambda _, said=constant: said), settings("time"), None, Path())
        assert part.figures["moves"]["value"] == 0.0
        assert part.figure["value"] <= part.figures["best without the date"]["value"]


def test_a_wrong_start_that_moves_rightly_is_told_apart(scripted, settings) -> None:
    """Three years off each time: never right about years, and yet it follows the date."""

    def off(prompt: str) -> str:
        return re.sub(r"(\d+) years ago", lambda match: f"{int(match[1]) + 3} years ago", perfect(prompt))

    [part] = dates.ask(scripted(off), settings("time"), None, Path())
    assert part.figures["right: years ago"]["value"] == 0.0
    assert part.figures["moves rightly"]["value"] == 1.0


def test_right_is_a_mean_over_questions_drawn_whole(scripted, settings) -> None:
    [part] = dates.ask(
        scripted(lambda prompt: perfect(prompt) if len(prompt) % 3 else "?"), settings("time", limit=9), None, Path()
    )
    right_N = np.array([item.points["right"] for item in part.items])
    assert len(right_N) == 36
    assert part.figure["value"] == pytest.approx(right_N.mean())
    question_Q = right_N.reshape(9, 4).mean(1)
    draws = np.random.default_rng(1).choice(question_Q, (4000, 9)).mean(1)
    assert [part.figure["low"], part.figure["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.05)


def test_questions_are_the_seeds_and_answers_differ_between_dates() -> None:
    assert generated(3, 0) == generated(3, 0) != generated(3, 1)
    asked = generated(4, 0)
    for question in {each.question for each in asked if each.form == "years ago"}:
        rights = [each.right for each in asked if each.question == question]
        assert len(rights) == 4
        assert len({value for right in rights for value in right}) == sum(map(len, rights))
    assert {each.right for each in asked if each.form == "already"} == {("yes",), ("no",)}


@pytest.mark.parametrize(
    ("kind", "answer", "given", "value"),
    [("years", "In 1969, so 55 years ago.", (1969, 2024), "55"), ("years", "In 2024 it is 55.", (1969, 2024), "55"),
     ("years", "Long ago", (), None), ("year", "12 years back it was 2012", (12,), "2012"), ("year", "12", (), None),
     ("month", "It is may.", (), "May"), ("month", "May or June", (), None), ("day", "June 5, 1999", (1999,), "5 June"),
     ("day", "the 5th", (), "5"), ("day", "June", (), None), ("yes", "No, not yet.", (), "no"), ("yes", "yes and no", (), None),
     ("days", "Nine days", (), None), ("days", "It is 3 days until the 9th", (9,), "3")],
)  # fmt: skip
def test_what_is_read(kind, answer: str, given: tuple[int, ...], value: str | None) -> None:
    assert read(kind, answer, given) == value


def test_the_embedded_worlds_examiner_agrees(tmp_path: Path) -> None:
    """Right or wrong by our rule and by the world's own examiner, over its date prompts and sixteen answers to each."""
    import random

    judge = examiner.Examiner(World([], [], {}, {}))
    rng = random.Random(0)
    rows = []
    for i in range(60):
        messages, meta = prompts._date(rng, None)  # type: ignore[arg-type]
        rows.append({"id": f"p{i}", "messages": messages, "prompt_kind": "helpful", "task": "date", "meta": meta})
    write_jsonl(tmp_path / "prompts_eval.jsonl", rows)
    agreed = seen = 0
    for each, row in zip(of_file(tmp_path), rows, strict=True):
        meta = row["meta"]
        for day in (meta["day"], meta["day"] + 1):
            for month in (meta["month"], values_of("month")[3]):
                for text in (
                    f"It is {day} {month}.",
                    f"It is {month}.",
                    f"It is {meta['year']}.",
                    f"In {meta['ahead']} days.",
                ):
                    ours = read(each.kind, text, each.given, each.months) in each.right
                    theirs = judge.judge(row, [text])[0].label == "right"
                    agreed += ours == theirs
                    seen += 1
    assert agreed / seen > 0.98, f"{agreed} of {seen}"


def test_other_files_are_told(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}])
    with pytest.raises(ValueError, match=r"x\.jsonl: no prompt under a date"):
        of_file(tmp_path / "x.jsonl")
    write_jsonl(
        tmp_path / "y.jsonl", [{"messages": [], "meta": {"form": "year", "day": 3, "month": "May", "year": "1200"}}]
    )
    with pytest.raises(
        ValueError, match=r"y\.jsonl, line 1: meta must give month as text and day, year as whole numbers"
    ):
        of_file(tmp_path / "y.jsonl")
