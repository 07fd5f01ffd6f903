"""The screen of `ayni contamination`: one table a data set, laid out as the paper's Table 51."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text

from ayni import telemetry
from ayni.artifacts import read_json
from ayni.text.sources import read_jsonl

Row = dict[str, Any]
EXAMPLES = 3


def show(out: Path) -> None:
    """Prints contamination.json and the most contaminated samples of each data set."""
    found = read_json(out / "contamination.json")
    rows = read_jsonl(out / "samples.jsonl")
    amount = f"{found['training']['documents']:,} training documents, {found['training']['tokens']:,} tokens"
    telemetry.show(Text(f"{amount} ({found['tokens']})"))
    for dataset in found["datasets"]:
        if dataset["scored"]:
            _with_scores(dataset)
        else:
            _without_scores(dataset)
        _examples([row for row in rows if row["dataset"] == dataset["name"]])


def _with_scores(dataset: Row) -> None:
    """Table 51 at the largest L that shows an effect; where none does, the table at the smallest L, and that it does not."""
    at = dataset["effect_at"]
    tables = dataset["by_length"]
    shown = next((table for table in tables if table["L"] == at), tables[0])
    verdict = "contamination shows in the scores" if at else "no effect at any L"
    cells = [
        [
            row["subset"],
            percent(row["contamination"]),
            row["n"],
            number(row["mean"]),
            number(row["mu"]),
            number(row["z"], 2),
        ]
        for row in shown["subsets"]
    ]
    telemetry.table(
        ["subset", "avg. contam. %", "n", "mean score", "mu_n", "Z_n"],
        cells,
        title=f"{dataset['name']} (L = {shown['L']}): {verdict}",
    )
    _sweep(dataset, f"{dataset['name']}: Z_n by L", "z")


def _without_scores(dataset: Row) -> None:
    _sweep(dataset, f"{dataset['name']}: {dataset['samples']:,} samples, number in each subset by L", "n")


def _sweep(dataset: Row, title: str, key: str) -> None:
    names = [row["subset"] for row in dataset["by_length"][0]["subsets"]]
    marks = {
        "clean": "clean <20%",
        "not clean": "not clean >=20%",
        "not dirty": "not dirty <80%",
        "dirty": "dirty >=80%",
    }
    cells = [
        [f"L = {table['L']}", percent(table["contamination"])]
        + [row["n"] if key == "n" else number(row["z"], 2) for row in table["subsets"]]
        + ([] if table["effect"] is None else ["effect" if table["effect"] else "none"])
        for table in dataset["by_length"]
    ]
    head = ["", "contam. %", *(marks[name] for name in names)]
    telemetry.table(head if key == "n" else [*head, "verdict"], cells, title=title)


def _examples(rows: list[Row]) -> None:
    worst = sorted((row for row in rows if row["longest_match"]), key=_severity, reverse=True)[:EXAMPLES]
    for row in worst:
        share = next(iter(row["contamination"].values()))
        telemetry.show(
            Text(
                f"{row['id']}: {share:.0%} of {row['tokens']} tokens; {row['longest_match']} in one piece, {row['found_in']}"
            ),
            Text(f"  {' '.join(row['excerpt'].split())[:160]}"),
        )


def _severity(row: Row) -> tuple[float, int]:
    return next(iter(row["contamination"].values())), row["longest_match"]


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
