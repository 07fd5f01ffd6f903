"""A page per version: every part from its own file, and every part allowed to be missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ayni.report import build
from ayni.report.results import read_run
from ayni.report.reward_tables import calibration
from ayni.report.version_page import apart, evaluation, ppo_plots, wins
from ayni.report.versions import version_names, versions

MakeRun = Callable[..., Path]


class Sections(HTMLParser):
    """The text of each section by id, and the rows of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.at: list[str] = []
        self.in_table = False
        self.source = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.at.append(dict(attrs).get("id") or "")
            self.text.setdefault(self.at[-1], "")
            self.rows.setdefault(self.at[-1], [])
        if tag == "tr" and self.at:
            self.rows[self.at[-1]].append([])
        if tag in ("td", "th") and self.at:
            self.rows[self.at[-1]][-1].append("")
            self.in_table = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self.at.pop()
        self.in_table = self.in_table and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.at:
            self.text[self.at[-1]] += data + " "
            if self.in_table and data.strip():
                row = self.rows[self.at[-1]][-1]
                row[-1] = f"{row[-1]} {data}".strip()

    def row(self, section: str, head: str) -> list[str]:
        return next(row for row in self.rows[section] if row and row[0] == head)


@pytest.fixture(scope="module")
def page(make_run: MakeRun) -> Sections:
    return Sections(build(make_run()).read_text(encoding="utf-8"))


def test_preference_counts_come_from_the_summary(page: Sections) -> None:
    assert "Pairs 4000, held out 391" in page.text["version-1-data"]
    for name, n in (("significantly better", "761"), ("negligibly better or unsure", "611"), ("terse", "2011"),
                    ("only the chosen one is safe", "214"), ("equal answers", "37")):  # fmt: skip
        assert page.row("version-1-data", name)[1] == n


def test_table_8_stands_beside_the_papers(page: Sections) -> None:
    ours = page.row("version-1-rewards", "helpfulness")
    assert [cell.split()[0] for cell in ours[1:]] == ["87.0", "78.0", "66.0", "55.0", "71.0", "66.0"]
    assert page.row("version-1-rewards", "the longer answer")[1:5] == ["–", "41.3", "–", "–"]
    papers = [row[1:5] for row in page.rows["version-1-rewards"] if row and row[0] == "the paper’s"]
    assert papers == [["80.7", "67.5", "60.9", "54.7"], ["94.3", "76.3", "65.7", "55.3"]]
    assert page.row("version-1-rewards", "safety")[0] == "safety"
    gate = [row for row in page.rows["version-1-rewards"] if len(row) == 5 and row[0] == "safety"]
    assert gate == [["safety", "0.187", "0.91", "0.62", "–"]]
    assert "Safety model: expected calibration error 0.043." in page.text["version-1-rewards"]


def test_the_plots_of_sampling_and_calibration_are_there(page: Sections) -> None:
    assert "Temperature 0.9, k 8, prompts 400, targets 391, carried 0." in page.text["version-1-sampling"]
    assert "rank correlation with people’s ratings 0.512 on 90 answers" in page.text["version-1-rewards"]
    for title in ("Reward against answers per prompt (K)", "Reward against sampling temperature (chosen: 0.9)"):
        assert title in page.text["version-1-sampling"]
    assert "Calibration: observed against predicted" in page.text["version-1-rewards"]
    assert "best that ended" in page.text["version-1-sampling"]
    assert "reward 1.25" in page.text["version-1-sampling"]


def test_evaluation_beside_sft_and_the_version_before(make_run: MakeRun, page: Sections) -> None:
    found = versions(read_run(make_run()))
    assert [version.names for version in found] == [["sft", "v1"], ["sft", "v1", "v2"]]
    table = evaluation(found[1])
    assert table is not None
    row = next(row for row in table["rows"] if row["name"] == "violation")
    assert [cell["value"] for cell in row["cells"]] == [0.312, 0.117, 0.046]
    assert row["verdicts"] == ["better", "better"]
    assert "v2 better" in page.row("version-2-evaluation", "violations ↓")[1]


@pytest.mark.parametrize(
    ("old", "new", "metric", "verdict"),
    [
        ((0.5, 0.4, 0.6), (0.7, 0.61, 0.8), "facts_right", "better"),
        ((0.5, 0.4, 0.6), (0.7, 0.59, 0.8), "facts_right", ""),
        ((0.1, 0.0, 0.2), (0.4, 0.3, 0.5), "violation", "worse"),
        ((9.0, 8.0, 10.0), (15.0, 14.0, 16.0), "mean_tokens", "higher"),
    ],
)
def test_a_verdict_only_where_intervals_do_not_touch(
    old: tuple[float, ...], new: tuple[float, ...], metric: str, verdict: str
) -> None:
    first, second = (dict(zip(("value", "low", "high"), found)) for found in (old, new))
    assert apart(first, second, metric) == verdict
    assert apart(None, second, metric) == ""


def test_twenty_dialogues_with_scores(page: Sections) -> None:
    text = page.source
    section = text[text.index('id="version-2-dialogues"') : text.index('id="lineage"')]
    assert section.count('<article class="sample">') == 20
    assert section.count('class="answer ') == 60  # sft, v1, v2
    assert "utility 0.25, tokens 17" in page.text["version-2-dialogues"]


def test_ppo_from_the_history_where_the_log_is_gone(make_run: MakeRun) -> None:
    run = make_run()
    shutil.rmtree(run / "v2_ppo" / "logs")
    assert [row["reward"] for row in versions(read_run(run))[1].ppo] == [0.3, 0.4]


def test_a_column_that_no_panel_knows_gets_one() -> None:
    drawn: list[str] = []
    found = ppo_plots(
        [{"step": 1, "reward": 0.1, "guard_reward": 0.3}, {"step": 2, "reward": 0.2, "guard_reward": 0.2}],
        lambda name, draw, size: drawn.append(draw.keywords["title"]),
    )
    assert found is not None
    assert drawn == ["Reward (raw scores)", "guard reward"]


def test_versions_as_the_recipe_lists_them_else_as_directories_are_called(make_run: MakeRun) -> None:
    run = make_run(lambda results: results["settings"].update(versions=[{"name": "v2"}, {"name": "v1"}]))
    assert version_names(read_run(run)) == ["v2", "v1"]
    assert version_names(read_run(make_run())) == ["v1", "v2"]


def test_an_old_run_without_any_part_still_has_its_page(make_run: MakeRun) -> None:
    run = make_run(lambda results: results["settings"].update(versions=[{"name": "v1"}, {"name": "v2"}]))
    for directory in [path for path in run.iterdir() if path.is_dir()]:
        shutil.rmtree(directory)
    (run / "samples.json").unlink()
    sections = Sections(build(run).read_text()).text
    assert [name for name in sections if name.startswith("version-")] == [
        "version-1-evaluation",
        "version-2-evaluation",
    ]
    assert "lineage-picture" not in sections


def test_hostile_words_in_a_versions_files_stay_words(make_run: MakeRun) -> None:
    evil = "<script>alert(1)</script>"
    run = make_run(lambda results: results["settings"].update(versions=[{"name": "v1"}, {"name": evil}]))
    summary = json.loads((run / "v1_preferences" / "summary.json").read_text())
    summary["annotator"][evil] = 3
    summary[evil] = {evil: 1}
    (run / "v1_preferences" / "summary.json").write_text(json.dumps(summary))
    row = {"messages": [{"role": evil, "content": evil}], "reward": 1.0}
    (run / "v1_rejection" / "samples.jsonl").write_text(json.dumps(row) + "\n")
    manifest = json.loads((run / "sft" / "manifest.json").read_text())
    manifest["stage"] = evil
    manifest["inputs"][evil] = {"path": f"../../{evil}", "hash": evil}
    (run / "sft" / "manifest.json").write_text(json.dumps(manifest))
    text = build(run).read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert not re.search(r"\son\w+=", re.sub(r"&lt;.*?&gt;", "", text))


@pytest.mark.parametrize(
    ("found", "bins", "error"),
    [
        ({}, [], None),
        ({"calibration": {"ece": None, "bins": []}}, [], None),
        (
            {"calibration": {"ece": 0.1, "bins": [{"low": 0.5, "high": 0.6, "predicted": 0.55, "observed": {"value": 0.5, "low": 0.4, "high": 0.6}}]}},
            [{"predicted": 0.55, "observed": 0.5, "low": 0.4, "high": 0.6}],
            0.1,
        ),
        (
            {"calibration": {"bins": [{"predicted": 0.6, "observed": 0.5}, {"predicted": 0.9, "observed": None}]}},
            [{"predicted": 0.6, "observed": 0.5, "low": None, "high": None}],
            None,
        ),
    ],
)  # fmt: skip
def test_calibration_with_the_rates_own_interval(
    found: dict[str, object], bins: list[dict[str, object]], error: float | None
) -> None:
    assert calibration(found) == (bins, error)


def test_wins_against_the_version_before(make_run: MakeRun) -> None:
    def change(results: dict[str, Any]) -> None:
        v2 = next(c for c in results["checkpoints"] if c["name"] == "v2")
        won = {"value": 0.55, "low": 0.5, "high": 0.6, "n": 400, "unit": "share"}
        v2["metrics"] |= {"helpful_win_vs_previous": won, "reward_win_vs_previous_safety": won}
        results["versions"] = [
            {"name": "v2", "previous": "sft_clean", "checkpoints": ["v2"]}, {"name": "v1", "previous": "sft"},
        ]  # fmt: skip

    first, second = versions(read_run(make_run(change)))
    assert (first.names, second.names) == (["sft", "v1"], ["sft", "sft_clean", "v2"])
    table = wins(second)
    assert table is not None
    assert [row["against"] for row in table["rows"]] == ["SFT", "the version before"]
    assert [cell["value"] if cell else None for cell in table["rows"][1]["cells"]] == [0.55, None, None, 0.55]
    assert wins(first) is None  # helpful against SFT stands in the table above
