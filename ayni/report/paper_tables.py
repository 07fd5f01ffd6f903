"""The paper's tables in its own arrangement, our figures beside its own (`ayni tables`).

A cell that was not measured is a dash. What is not the paper's measurement (a part of a set, other examples, another judge, a
stand-in, a study in the embedded world) bears a letter, and the footnote says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from ayni.feedback.pairs import SAFE
from ayni.report.paper_results import Found, Measured

Row = dict[str, Any]
DASH = "–"
SUBSETS = {"clean": "Clean", "not clean": "Not Clean", "not dirty": "Not Dirty", "dirty": "Dirty"}


@dataclass(frozen=True)
class Cell:
    """`text`: as printed; `mark`: the letter of its footnote."""

    text: str = DASH
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.mark})" if self.mark else self.text


@dataclass
class PaperTable:
    number: int
    title: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)  # footnote -> its letter

    def mark(self, note: str) -> str:
        """The letter of a footnote: a, b, ..., z, aa, ab, ...; equal footnotes share one."""
        if note not in self.notes:
            number, letters = len(self.notes) + 1, ""
            while number:
                number, rest = divmod(number - 1, 26)
                letters = chr(ord("a") + rest) + letters
            self.notes[note] = letters
        return self.notes[note]


@cache
def paper() -> dict[int, Any]:
    values: dict[int, Any] = yaml.safe_load((files("ayni.report") / "paper_tables.yaml").read_text(encoding="utf-8"))
    return values


def tables(found: Found, numbers: Sequence[int] = ()) -> list[PaperTable]:
    """All tables, or those named, in the paper's order. ValueError for a number that there is no table of."""
    if unknown := [number for number in numbers if number not in paper()]:
        raise ValueError(f"no Table {unknown[0]} here; known: {', '.join(map(str, paper()))}")
    return [BUILD[number](number, paper()[number], found) for number in paper() if number in numbers or not numbers]


# ---- Tables 3, 11, 14: models on suites ------------------------------------------------------------------------------


def suites(number: int, values: Row, found: Found) -> PaperTable:
    table = PaperTable(number, values["title"], ["model", *values["columns"]])
    table.rows = of_paper(values["rows"], values.get("digits"))
    for (model, template), measured in found.suites.items():
        if template not in values["templates"]:
            continue
        cells = [group(table, column, measured, values.get("differs", "")) for column in values["columns"].values()]
        if any(cell.text != DASH for cell in cells):
            table.rows.append((f"{model} (chat)" if template == "chat" else model, cells))
    return table


def group(table: PaperTable, column: Mapping[str, Any], measured: Mapping[str, Measured], differs: str) -> Cell:
    """The mean of a group's tasks, each counting the same, as the paper has it; the interval where it is one task."""
    shots: dict[str, int] = column.get("tasks", {})
    stands_in = not any(has(measured, name) for name in shots)
    shots = column.get("stand_in", {}) if stands_in else shots
    known = {name: measured[name] for name in shots if has(measured, name)}
    if not known:
        return Cell()
    values = [each.figure["value"] for each in known.values()]
    absent = [*(name for name in shots if name not in known), *column.get("absent", [])]
    plain = all(exact(each, shots[name]) for name, each in known.items())
    text = percent(known.popitem()[1].figure) if len(values) == 1 else f"{100 * sum(values) / len(values):.1f}"
    if plain and not absent and not differs and not stands_in:
        return Cell(text)
    told = [described(measured[name], shots[name]) for name in shots if has(measured, name)]
    note = ("mean of " if len(told) > 1 else "") + "; ".join(told)
    note = f"a stand-in, not the paper's sets: {note}" if stands_in else note
    note += f"; without {', '.join(absent)}" if absent else ""
    return Cell(text, table.mark(note + (f"; {differs}" if differs else "")))


def has(measured: Mapping[str, Measured], name: str) -> bool:
    return name in measured and measured[name].figure["value"] is not None


def exact(each: Measured, shots: int) -> bool:
    """The whole public set, plainly asked, with the paper's number of examples."""
    task = each.task
    return (
        task["source"] == "hf" and task["rows"] >= task["of"] and task["template"] == "plain" and task["shots"] == shots
    )


def described(each: Measured, shots: int) -> str:
    task = each.task
    asked = f"{task['shots']}-shot" + ("" if task["shots"] == shots else f" (the paper {shots})")
    note = f"; {task['note']}" if task["note"] else ""
    return f"{task['label']} [{task['source']} {task['split']}, {asked}, {task['template']}, {task['metric']}{note}]"


# ---- Tables 8 and 29: reward models ----------------------------------------------------------------------------------


def strengths(number: int, values: Row, found: Found) -> PaperTable:
    table = PaperTable(number, values["title"], ["test set, reward model", *values["columns"]])
    table.rows = of_paper(values["rows"])
    for name, report in found.accuracy.items():
        for tested in report["accuracy_by_set"]:
            if tested["set"] in ("safety", "helpful"):
                mark = table.mark(f"pairs of {name}'s own held-out prompts, by its own annotator")
                cells = [
                    Cell(percent(each), mark if each["value"] is not None else "") for each in tested["by_strength"]
                ]
                table.rows.append(
                    (f"{tested['set']} pairs, {name} ({report['kind']})", [*cells, Cell(percent(tested), mark)])
                )
    return table  # fmt: skip


def auxiliary(number: int, values: Row, found: Found) -> PaperTable:
    table = PaperTable(number, values["title"], ["safety reward model", *values["columns"]])
    table.rows = of_paper(values["rows"])
    for name, report in found.accuracy.items():
        if report["kind"] != "safety":
            continue
        by_safety = {each["safety"]: each for each in report["accuracy_by_safety"]}
        figures = [report["accuracy"], *(by_safety[label] for label in SAFE), report["unsafe_at_half"]["recall"]]
        mark = table.mark(f"pairs of {name}'s own held-out prompts, by its own annotator")
        weight = report["settings"]["safety_weight"]
        cells = [Cell(percent(each), mark if each["value"] is not None else "") for each in figures]
        table.rows.append((f"{name}, {f'auxiliary loss {weight:g}' if weight else 'without the loss'}", cells))
    if study := found.studies.get(values["study"]):
        mark = table.mark(of_study(study))
        for arm, *texts in study["table"]["rows"]:
            if arm.endswith(", ours"):
                cells = [Cell(text, mark if text != DASH else "") for text in texts[: len(values["columns"])]]
                table.rows.append((f"study, {arm.removesuffix(', ours')} the loss", cells))
    return table


# ---- Table 18: attention; Table 30: Ghost Attention; Table 51: contamination -----------------------------------------


def attention(number: int, values: Row, found: Found) -> PaperTable:
    """The paper's benchmarks are beyond a model of this size; what the study measured instead stands to the right."""
    table = PaperTable(number, values["title"], ["attention", *values["columns"]])
    table.rows = of_paper(values["rows"])
    if study := found.studies.get(values["study"]):
        ours = {arm: texts for arm, *texts in study["table"]["rows"]}
        mark = table.mark(f"{of_study(study)}; not the paper's benchmarks")
        table.title += " (the paper's; the columns called ours are ours)"
        table.columns += [f"ours: {column}" for column in study["table"]["columns"][1:]]
        width = len(study["table"]["columns"]) - 1
        for position, (name, cells) in enumerate(table.rows):
            texts = ours.get(name.removesuffix(PAPER), [DASH] * width)
            table.rows[position] = (
                name.removesuffix(PAPER),
                [*cells, *(Cell(str(text), mark if text != DASH else "") for text in texts)],
            )
    return table  # fmt: skip


def ghost(number: int, values: Row, found: Found) -> PaperTable:
    """A row a turn; for each evaluation the model before and after, for instructions that were trained and that never were."""
    table = PaperTable(
        number, values["title"], ["dialogue turn", *(f"{column}{PAPER}" for column in values["columns"])]
    )
    columns: list[tuple[str, dict[int, Cell]]] = []
    for name, kept in found.turns.items():
        for label, arm in (("Baseline", "before"), ("+ GAtt", "after")):
            for which, figures in kept["arms"].get(arm, {}).items():
                mark = table.mark(f"{name}: instructions with a check by program, {which}; each turn of each dialogue")
                by_turn = {turn: Cell(percent(each), mark) for turn, each in zip(kept["turns"], figures)}
                columns.append((f"{label}, {name}, {which}", by_turn))
    if study := found.studies.get(values["study"]):
        turns = [int(column.removeprefix("turn ")) for column in study["table"]["columns"][1:]]
        for arm, *texts in study["table"]["rows"]:
            label, _, which = arm.partition(", ")
            if label in ("before", "after") and which in ("trained", "never trained", "shortened"):
                mark = table.mark(of_study(study))
                by_turn = {turn: Cell(text, mark) for turn, text in zip(turns, texts) if text != DASH}
                columns.append((f"{'Baseline' if label == 'before' else '+ GAtt'}, study, {which}", by_turn))
    table.columns += [name for name, _ in columns]
    for turn, cells in values["rows"].items():
        table.rows.append((str(turn), [*map(plain, cells), *(by_turn.get(turn, Cell()) for _, by_turn in columns)]))
    return table


def contaminated(number: int, values: Row, found: Found) -> PaperTable:
    table = PaperTable(number, values["title"], ["dataset", *values["columns"]])
    for name, rows in values["rows"].items():
        table.rows += [(f"{name}{PAPER}", [*map(plain, row)]) for row in rows]
    for name, report in found.contamination:
        for dataset in report["datasets"]:
            if not dataset["scored"]:
                continue
            at = dataset["effect_at"]
            shown = next((each for each in dataset["by_length"] if each["L"] == at), dataset["by_length"][0])
            told = f"{name}: {report['training']['documents']:,} training documents, {report['tokens']}; scores as given, of the model that they are of"
            mark = table.mark(told if at else f"{told}; no effect at any L, so this is no affected dataset")
            for subset in shown["subsets"]:
                texts = [
                    DASH, SUBSETS[subset["subset"]], number_of(subset["contamination"], 100, 1), str(subset["n"]),
                    number_of(subset["mean"], 1, 3), number_of(subset["mu"], 1, 3), number_of(subset["z"], 1, 2),
                ]  # fmt: skip
                cells = [Cell(text, mark if place == 1 else "") for place, text in enumerate(texts)]
                table.rows.append((f"{dataset['name']} (L = {shown['L']})", cells))
    return table


# ---- cells -----------------------------------------------------------------------------------------------------------

PAPER = " (paper)"


def of_paper(rows: Mapping[str, Sequence[Any]], digits: int | None = None) -> list[tuple[str, list[Cell]]]:
    return [(f"{name}{PAPER}", [plain(cell, digits) for cell in cells]) for name, cells in rows.items()]


def plain(value: Any, digits: int | None = None) -> Cell:
    return Cell(DASH if value is None else str(value) if digits is None else f"{value:.{digits}f}")


def percent(figure: Row) -> str:
    """12.3 [10.1, 14.9], of a share."""
    if figure["value"] is None:
        return DASH
    value = f"{100 * figure['value']:.1f}"
    return value if figure["low"] is None else f"{value} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def number_of(value: float | None, times: float, digits: int) -> str:
    return DASH if value is None else f"{times * value:.{digits}f}"


def of_study(study: Row) -> str:
    smoke = "; a smoke run, whose figures mean nothing" if study["scale"] == "smoke" else ""
    return f"study {study['study']}: models of the embedded world, {study['seeds']} seeds [95% interval]{smoke}"


BUILD = {3: suites, 8: strengths, 11: suites, 14: suites, 18: attention, 29: auxiliary, 30: ghost, 51: contaminated}
