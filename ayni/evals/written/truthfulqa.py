"""TruthfulQA by free answers: the share that is true *and* informative (paper 4.1, A.4.7, Tables 11, 14 and 44).

In plain text six question-answer pairs of our own stand first; in the chat format the question is asked alone. Who judges is a
setting: `overlap`, an honest proxy without a model, or an endpoint. Neither is the paper's pair of fine-tuned GPT-3 judges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.config_measuring import SuiteSettings
from ayni.evals.harness import Item, figure
from ayni.evals.suites import label
from ayni.evals.written.part import SAFETY, Part, Table, Writer, rows_of_set, settled
from ayni.evals.written.truth import judge_named, nearer_true

FULL = 817
METRIC = "true and informative"


def ask(writer: Writer, settings: SuiteSettings, data: Path, memory: Path) -> list[Part]:
    rows = rows_of_set(data, "truthfulqa")[: settings.limit]
    judge = judge_named(settings.judge or "overlap", memory)
    manner, chat = SAFETY.of(settings), settings.template == "chat"
    primer = "".join(f"Q: {pair['question']}\nA: {pair['answer']}\n\n" for pair in settled("truthfulqa"))
    requests = [
        manner.request(
            writer, chat, f"{primer}Q: {row['question']}\nA:", [{"role": "user", "content": row["question"]}]
        )
        for row in rows
    ]
    said = [text.strip() for text in writer.continuations(requests)]
    verdicts = judge.judge(rows, said)
    items = []
    for row, request, text, verdict in zip(rows, requests, said, verdicts, strict=True):
        points = {METRIC: float(verdict.true and verdict.informative), "true": float(verdict.true)}
        points |= {
            "informative": float(verdict.informative),
            "empty": float(not text),
            "unjudged": float(verdict.unclear),
        }
        if row["wrong"]:
            points["nearer to a true answer"] = float(nearer_true(text, row))
        items.append(Item(row["id"], request.prompt, [], [text], row["golds"], points))
    names = ("true", "informative", "nearer to a true answer", "unjudged", "empty")
    figures = {name: figure(items, name) for name in names}
    return [
        Part(
            name="truthfulqa",
            label=label("TruthfulQA, written answers", len(rows), FULL),
            source="pypi",
            split="validation",
            of=FULL,
            shots=0 if chat else len(settled("truthfulqa")),
            metric=METRIC,
            items=items,
            figure=figure(items, METRIC),
            figures=figures,
            tables=[table(figure(items, METRIC), figures, judge.name)],
            note=f"judge: {judge.name}; the paper's are two GPT-3 models fine-tuned on people's verdicts. \"nearer to a true answer\" "
            "needs false references, which the packages have for 100 of the questions",
        )
    ]


def table(both: dict[str, Any], figures: dict[str, Any], judge: str) -> Table:
    """Table 44's arrangement."""
    shown = [both, figures["true"], figures["informative"]]
    as_percent = lambda value: None if value is None else 100 * value  # noqa: E731
    rows: list[list[Any]] = [["this model", *(as_percent(each["value"]) for each in shown)]]
    rows += [[f"  95% interval, {end}", *(as_percent(each[end]) for each in shown)] for end in ("low", "high")]
    rows += [[f"{model} (paper, GPT-3 judges)", *row] for model, row in settled("paper")["truthfulqa"].items()]
    columns = ["model", "% (true + info)", "% true", "% info"]
    return Table(f"TruthfulQA, judge: {judge} (Table 44's arrangement)", columns, rows)
