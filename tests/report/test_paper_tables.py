"""The paper's tables: its values against each other, and ours against means taken by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ayni.report import paper_pages, paper_results, paper_tables
from ayni.report.paper_tables import Cell, paper
from ayni.stages.ghost_turns import PAPER as TABLE_30
from tests.conftest import ROOT, ayni

Row = dict[str, Any]


def share(value: float | None, half: float = 0.05, n: int = 10) -> Row:
    low, high = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "n": n, "unit": "share"}


def task(
    name: str, rows: int, of: int, *, source: str = "pypi", shots: int = 0, template: str = "plain", note: str = ""
) -> Row:
    label = name.upper() if rows >= of else f"{name.upper()}: {rows} of {of} rows"
    return {"task": name, "label": label, "split": "test", "source": source, "rows": rows, "of": of, "shots": shots,
            "template": template, "metric": "acc", "better": "higher", "note": note}  # fmt: skip


def suite(
    here: Path, tasks: list[Row], values: list[float | None], model: str = "models/mine", identity: str = "m" * 64
) -> Path:
    """A finished evaluation, as `ayni eval --suite` writes it."""
    here.mkdir(parents=True)
    metrics = {one["task"]: share(value) for one, value in zip(tasks, values, strict=True)}
    results = {
        "checkpoints": [{"name": "mine", "path": None, "metrics": metrics}],
        "tasks": tasks,
        "tables": [],
        "settings": {},
    }
    (here / "results.json").write_text(json.dumps(results))
    inputs = {"model": {"path": f"../{model}", "hash": identity}}
    (here / "manifest.json").write_text(
        json.dumps({"stage": "suite", "hash": "h", "fingerprint": "f", "inputs": inputs})
    )
    return here


def table(number: int, *paths: Path) -> paper_tables.PaperTable:
    [made] = paper_tables.tables(paper_results.read(paths), [number])
    return made


def ours(made: paper_tables.PaperTable) -> dict[str, list[str]]:
    return {name: [str(cell) for cell in cells] for name, cells in made.rows if not name.endswith("(paper)")}


# ---- the paper's values ----------------------------------------------------------------------------------------------


def test_every_row_of_the_paper_has_a_cell_for_every_column() -> None:
    assert list(paper()) == [3, 8, 11, 14, 18, 29, 30, 51]
    for number, values in paper().items():
        rows = values["rows"].values() if number != 51 else [row for rows in values["rows"].values() for row in rows]
        assert {len(row) for row in rows} == {len(values["columns"])}, number


def test_tables_11_14_and_30_say_what_the_same_values_say_elsewhere() -> None:
    """Table 44's first column is 11's and 14's; Table 30 stands in the stage that measures it."""
    table_44 = yaml.safe_load((ROOT / "ayni" / "evals" / "written" / "paper.yaml").read_text())["truthfulqa"]
    mine = {
        name: cells[0]
        for number in (11, 14)
        for name, cells in paper()[number]["rows"].items()
        if name.startswith("Llama 2")
    }
    assert mine == {name: row[0] for name, row in table_44.items()}
    assert {turn: cells[0] / 100 for turn, cells in paper()[30]["rows"].items()} == TABLE_30["before"]
    assert {turn: cells[1] / 100 for turn, cells in paper()[30]["rows"].items()} == TABLE_30["after"]


def test_table_29_is_the_one_that_the_study_prints() -> None:
    printed = json.loads((ROOT / "docs" / "studies" / "safety-aux" / "result.json").read_text())["table"]["rows"]
    by_arm = {arm: [float(text) for text in texts[:5]] for arm, *texts in printed if arm.endswith("paper")}
    assert list(paper()[29]["rows"].values()) == [by_arm["without, paper"], by_arm["with, paper"]]


def test_table_51_adds_up() -> None:
    """Clean and not clean are all samples, and so are not dirty and dirty: their means, weighted by n, are one and the same."""
    rows = paper()[51]["rows"]["HellaSwag (L = 40)"]
    for model in ("70B", "7B"):
        clean, not_clean, not_dirty, dirty = [row for row in rows if row[0] == model]
        assert clean[3] + not_clean[3] == not_dirty[3] + dirty[3] == 10_042
        means = [(a[3] * a[4] + b[3] * b[4]) / 10_042 for a, b in ((clean, not_clean), (not_dirty, dirty))]
        assert means[0] == pytest.approx(means[1], abs=0.1)
        assert [row[6] > 0 for row in (clean, not_clean, not_dirty, dirty)] == [False, True, False, True]
        assert min(abs(row[6]) for row in (clean, not_clean, not_dirty, dirty)) > 2


def test_llama_2_70b_beats_every_other_row_of_table_3() -> None:
    rows = dict(paper()[3]["rows"])
    best = rows.pop("Llama 2 70B")
    assert all(value < best[place] for row in rows.values() for place, value in enumerate(row))


# ---- ours ------------------------------------------------------------------------------------------------------------


def test_a_group_is_the_mean_of_what_was_measured_and_says_so(tmp_path: Path) -> None:
    measured = suite(
        tmp_path / "a", [task("piqa", 1500, 1838), task("siqa", 1954, 1954), task("asdiv", 9, 2305)], [0.5, 0.25, 0.125]
    )
    suite(
        tmp_path / "b" / "deeper",
        [task("mmlu", 14042, 14042, source="hf", shots=5), task("nq_open", 5, 3610)],
        [0.3, None],
    )
    made = table(3, measured, tmp_path / "b")
    [[name, cells]] = ours(made).items()
    assert (name, made.columns[1:4]) == ("mine", ["Code", "Commonsense Reasoning", "World Knowledge"])
    assert cells == ["–", "37.5 (a)", "–", "–", "12.5 [7.5, 17.5] (b)", "30.0 [25.0, 35.0]", "–", "–"]
    notes = {letter: note for note, letter in made.notes.items()}
    assert "mean of PIQA: 1500 of 1838 rows [pypi test, 0-shot, plain, acc]; SIQA [" in notes["a"]
    assert "without hellaswag, openbookqa, commonsenseqa, WinoGrande, ARC easy, ARC challenge" in notes["a"]
    assert notes["b"].startswith("a stand-in, not the paper's sets: ASDIV: 9 of 2305 rows")
    assert len(made.rows) == len(paper()[3]["rows"]) + 1


def test_plain_answers_go_to_table_11_and_chats_to_table_14(tmp_path: Path) -> None:
    note = "judge: word overlap (a weak proxy)"
    suite(tmp_path / "a", [task("truthfulqa", 817, 817, shots=6, note=note)], [0.25])
    suite(
        tmp_path / "b", [task("toxigen", 650, 3254, source="file:statements.jsonl", shots=7, template="chat")], [0.0125]
    )
    assert ours(table(11, tmp_path)) == {"mine": ["25.0 [20.0, 30.0] (a)", "–"]}
    assert ours(table(14, tmp_path)) == {"mine (chat)": ["–", "1.2 [-3.8, 6.2] (a)"]}
    [told] = table(11, tmp_path).notes
    assert "a weak proxy" in told
    assert told.endswith("the paper's prompts, judges and classifier are others")
    assert ("Llama 2-Chat 7B (paper)", [Cell("57.04"), Cell("0.00")]) in table(14, tmp_path).rows


def test_reward_models_by_strength_and_with_the_auxiliary_loss(tmp_path: Path) -> None:
    levels = [{"strength": name, **share(value)} for name, value in zip("abcd", (0.9, 0.8, 0.7, None))]
    report = {
        "accuracy": share(0.6), "unsafe_at_half": {"recall": share(0.9), "precision": share(1.0)},
        "accuracy_by_set": [{"set": "safety", **share(0.75), "by_strength": levels}, {"set": "probes", **share(0.5), "by_strength": levels}],
        "accuracy_by_safety": [{"safety": name, **share(value)} for name, value in (("both", 0.5), ("neither", None), ("chosen_only", 0.8))],
    }  # fmt: skip
    here = tmp_path / "v1_reward_safety"
    here.mkdir()
    (here / "accuracy.json").write_text(json.dumps(report))
    (here / "manifest.json").write_text(
        json.dumps({"stage": "reward-safety", "hash": "r", "settings": {"safety_weight": 0.5}})
    )
    [(name, cells)] = ours(table(8, tmp_path)).items()
    assert name == "safety pairs, v1_reward_safety (safety)"
    assert [cell.split(" ")[0] for cell in cells] == ["90.0", "80.0", "70.0", "–", "75.0"]
    [(name, cells)] = ours(table(29, tmp_path)).items()
    assert name == "v1_reward_safety, auxiliary loss 0.5"
    assert [cell.split(" ")[0] for cell in cells] == ["60.0", "80.0", "50.0", "–", "90.0"]


def test_studies_turns_and_contamination_stand_in_their_tables(tmp_path: Path) -> None:
    studies = ROOT / "docs" / "studies"
    attention = table(18, studies)
    assert attention.columns[12] == "ours: kv heads"
    by_name = {name: [cell.text for cell in cells] for name, cells in attention.rows}
    assert [by_name[name][11] for name in ("MHA", "MQA", "GQA")] == ["4", "1", "2"]
    assert by_name["GQA"][:3] == ["69.4", "78.8", "48.6"]

    (tmp_path / "g").mkdir()
    arms = {"before": {"trained": [share(value) for value in (1.0, 0.5, 0.25)]}, "after": {"trained": [share(1.0)] * 3}}
    (tmp_path / "g" / "turns.json").write_text(json.dumps({"turns": [1, 2, 3], "arms": arms}))
    ghost = table(30, tmp_path / "g", studies)
    rows = {name: dict(zip(ghost.columns[1:], map(str, cells))) for name, cells in ghost.rows}
    assert rows["2"]["Baseline, g, trained"].startswith("50.0 [")
    assert rows["4"]["Baseline, g, trained"] == "–"
    assert rows["6"]["+ GAtt, study, trained"].startswith("83 [71, 95] (")
    assert rows["20"]["+ GAtt (paper)"] == "100"

    subsets = [
        {"subset": name, "n": 4, "contamination": 0.125, "mean": 0.5, "mu": 0.25, "z": 2.5}
        for name in paper_tables.SUBSETS
    ]
    by_length = [{"L": length, "subsets": subsets} for length in (10, 20)]
    found = {"name": "boats", "scored": True, "effect_at": 20, "by_length": by_length}
    unscored = {**found, "name": "nets", "scored": False}
    (tmp_path / "c").mkdir()
    report = {
        "tokens": "words",
        "training": {"documents": 3},
        "datasets": [found, unscored, {**found, "name": "tides", "effect_at": None}],
    }
    (tmp_path / "c" / "contamination.json").write_text(json.dumps(report))
    made = table(51, tmp_path / "c")
    added = [(name, [str(cell) for cell in cells]) for name, cells in made.rows if "paper" not in name]
    assert added[0] == ("boats (L = 20)", ["–", "Clean (a)", "12.5", "4", "0.500", "0.250", "2.50"])
    assert [name for name, _ in added] == ["boats (L = 20)"] * 4 + ["tides (L = 10)"] * 4
    assert any(note.endswith("no effect at any L, so this is no affected dataset") for note in made.notes)


def test_letters_go_on_after_z_and_equal_notes_share_one() -> None:
    made = paper_tables.PaperTable(1, "", [])
    assert [made.mark(str(number % 28)) for number in range(56)][24:30] == ["y", "z", "aa", "ab", "a", "b"]


def test_models_of_one_name_are_told_apart_and_one_measurement_twice_is_an_error(tmp_path: Path) -> None:
    suite(tmp_path / "a", [task("piqa", 1, 2)], [0.5], "x/sft", "1" * 64)
    suite(tmp_path / "b", [task("piqa", 1, 2)], [0.25], "y/sft", "2" * 64)
    assert {name: cells[1].split(" ")[0] for name, cells in ours(table(3, tmp_path)).items()} == {
        "sft": "50.0",
        "y/sft": "25.0",
    }
    suite(tmp_path / "c", [task("piqa", 1, 2)], [0.5], "x/sft", "1" * 64)
    with pytest.raises(ValueError, match=r"both measure piqa of sft \(plain\); give one of them"):
        table(3, tmp_path)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_same_cells_on_the_screen_in_markdown_and_in_html(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite(tmp_path / "a", [task("siqa", 9, 1954, note="<bold> & | bar")], [0.5])
    made = paper_tables.tables(paper_results.read([tmp_path]), [3])
    paper_pages.show(made)
    shown = capsys.readouterr().out
    assert "(a) SIQA: 9 of 1954 rows" in " ".join(shown.split())
    text = paper_pages.as_markdown(made)
    assert "| mine | – | 50.0 [45.0, 55.0] (a) |" in text
    assert "(a) SIQA: 9 of 1954 rows" in text
    page = paper_pages.as_html(made)
    assert '<tr class="ours"><td>mine</td><td>–</td><td>50.0 [45.0, 55.0]<sup>a</sup></td>' in page
    assert "&lt;bold&gt; &amp; | bar" in page
    assert "<bold>" not in page


def test_the_command_writes_a_page_and_names_mistakes(fails: Callable[..., str], tmp_path: Path) -> None:
    results = suite(tmp_path / "a", [task("piqa", 1, 2)], [0.5])
    done = ayni("tables", results, ROOT / "docs" / "studies", "--out", tmp_path / "t.md")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "t.md").read_text()
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("## ")] == [
        f"## Table {number}" for number in paper()
    ]
    assert "t.md: exists already" in fails("tables", results, "--out", tmp_path / "t.md")
    assert "expected a file that ends in .md or .html" in fails("tables", results, "--out", tmp_path / "t.pdf")
    assert "no Table 4 here; known: 3, 8, 11" in fails("tables", results, "--table", "4")
    (tmp_path / "empty").mkdir()
    assert "empty: no results in it" in fails("tables", results, tmp_path / "empty")
    assert not (tmp_path / "t.pdf").exists()
