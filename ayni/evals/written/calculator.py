"""`--suite tools`: ASDiv with a calculator and without (paper 5.1, Table 15: tool use, zero-shot in chat).

The model writes until it closes a call, the result is put behind it, and it goes on; each problem is answered both ways, so that
the difference is one of pairs. A call is <calculator>EXPRESSION</calculator>, or the JSON call that many chat templates teach:
{"name": "calculator", "arguments": {"expression": "EXPRESSION"}}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ayni.config_measuring import SuiteSettings
from ayni.evals.answering import Continue
from ayni.evals.harness import Item, figure
from ayni.evals.statistics import mean_interval, share
from ayni.evals.suites import label
from ayni.evals.tasks.points import last_number, same_number
from ayni.evals.written.arithmetic import calculate
from ayni.evals.written.part import GREEDY, Figure, Part, Row, Table, Writer, rows_of_set, settled

FULL = 2305
CLOSE, JSON_CLOSE = "</calculator>", "}}"
NO_VALUE = "error"  # what stands where a result would, if the call is no arithmetic
_TAG = re.compile(r"<calculator>((?:(?!<calculator>).)*)\Z", re.DOTALL)
_JSON = re.compile(r'"calculator"\s*,\s*"(?:arguments|parameters)"\s*:\s*\{\s*"expression"\s*:\s*"([^"]*)"\s*\Z')
_CALLED = re.compile(r"<calculator>.*?</calculator>", re.DOTALL)
_SAID = re.compile(r"answer is:?\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)


@dataclass
class Attempt:
    """One problem with the tool. `text`: what the model wrote, with the results that were put in."""

    prompt: str
    text: str = ""
    calls: list[tuple[str, str | None]] = field(default_factory=list)  # (expression, its value; None: not arithmetic)
    ended: bool = False


def ask(writer: Writer, settings: SuiteSettings, data: Path, memory: Path) -> list[Part]:
    rows, chat = rows_of_set(data, "asdiv")[: settings.limit], settings.template == "chat"
    manner = replace(GREEDY, max_new_tokens=160).of(settings)
    until = () if chat else ("\nProblem:",)

    def requests(way: str) -> list[Continue]:
        asked = []
        for row in rows:
            plain, messages = prompt(row, way)
            asked.append(replace(manner.request(writer, chat, plain, messages), until=until))
        return asked

    alone = writer.continuations(requests("without"))
    attempts = work(writer, requests("with"), settings.calls)
    items = []
    for row, without, attempt in zip(rows, alone, attempts):
        gold = row["golds"][0]
        points = {
            "with": float(same_number(final_number(attempt.text), gold)),
            "without": float(same_number(final_number(without), gold)),
            "calls": float(len(attempt.calls)),
            "called": float(bool(attempt.calls)),
        }
        points["difference"] = points["with"] - points["without"]
        items.append(Item(row["id"], attempt.prompt, [], [attempt.text, without], row["golds"], points))
    calls = [value is not None for attempt in attempts for _, value in attempt.calls]
    figures = {
        "without": figure(items, "without"),
        "with - without": mean_interval([item.points["difference"] for item in items], "difference of shares, paired"),
        "called": figure(items, "called"),
        "calls a problem": mean_interval([item.points["calls"] for item in items], "calls"),
        "valid calls": share(calls),
        "with, where called": share([item.points["with"] == 1.0 for item in items if item.points["called"]]),
        "without, where called": share([item.points["without"] == 1.0 for item in items if item.points["called"]]),
    }
    return [
        Part(
            name="calculator",
            label=label("ASDiv", len(rows), FULL) + ", with a calculator",
            source="pypi",
            split="all",
            of=FULL,
            shots=0 if chat else len(settled("calculator")["examples"]),
            metric="with",
            items=items,
            figure=figure(items, "with"),
            figures=figures,
            tables=[table(figure(items, "with"), figures)],
            note="problems whose answer is a number; right if the number after \"the answer is\" is, else the last one. "
            f"{CLOSE} and the JSON form count as calls, at most {settings.calls} in one answer",
        )
    ]  # fmt: skip


def prompt(row: Row, way: str) -> tuple[str, list[dict[str, str]]]:
    """(plain text with worked examples, dialogue without any); `way`: with or without the tool."""
    written, problem = settled("calculator"), f"{row['passage']} {row['question']}".strip()
    examples = "".join(f"Problem: {each['problem']}\nSolution: {each[way]}\n\n" for each in written["examples"])
    plain = f"{written['instruction'][way]}\n\n{examples}Problem: {problem}\nSolution:"
    return plain, [{"role": "system", "content": written["instruction"][way]}, {"role": "user", "content": problem}]


def work(writer: Writer, requests: Sequence[Continue], most: int) -> list[Attempt]:
    """All problems side by side: write up to a call, put its result in, go on; after `most` calls the rest is as it comes."""
    attempts = [Attempt(request.prompt) for request in requests]
    for turn in range(most + 1):
        open_ = [(attempt, request) for attempt, request in zip(attempts, requests) if not attempt.ended]
        if not open_:
            break
        asked = [
            replace(
                request,
                prompt=attempt.prompt + attempt.text,
                until=(*request.until, CLOSE, JSON_CLOSE) if turn < most else request.until,
            )
            for attempt, request in open_
        ]
        for (attempt, _), said in zip(open_, writer.continuations(asked)):
            attempt.text += said
            expression = call_at_end(said) if turn < most else None
            if expression is None:
                attempt.ended = True
                continue
            value = calculate(expression)
            attempt.calls.append((expression, value))
            end = f"{CLOSE} =" if _TAG.search(said) else f"{JSON_CLOSE}\nResult:"
            attempt.text += f"{end} {value or NO_VALUE}"
    return attempts


def call_at_end(said: str) -> str | None:
    """The expression of a call that the text ends with, its closing mark cut off; None: no call.

    A call that the model left open when it stopped counts as one.
    """
    match = _TAG.search(said) or _JSON.search(said)
    return None if match is None else match[1].strip()


def final_number(text: str) -> float | None:
    """The number after the first "the answer is" (what a rambling model adds is nothing), else the last outside calls."""
    said = _SAID.search(text)
    return float(said[1].replace(",", "")) if said else last_number(_CALLED.sub(" ", text))


def table(with_tool: Figure, figures: dict[str, Figure]) -> Table:
    """Table 15's arrangement."""
    as_percent = lambda value: None if value is None else 100 * value  # noqa: E731
    ways = {"this model, with the calculator": with_tool, "this model, without": figures["without"]}
    rows = [
        [name, as_percent(each["value"]), as_percent(each["low"]), as_percent(each["high"]), None, None]
        for name, each in ways.items()
    ]
    difference = figures["with - without"]
    rows.append(
        ["  with - without, paired", *(as_percent(difference[key]) for key in ("value", "low", "high")), None, None]
    )
    paper = settled("paper")["calculator"]
    rows += [[f"{name} (paper)", asdiv, None, None, svamp, mawps] for name, (asdiv, svamp, mawps) in paper.items()]
    return Table("% right, greedy (Table 15's arrangement)", ["model", "ASDiv", "low", "high", "SVAMP", "MAWPS"], rows)
