"""The page holds results.json's figures, and nothing that a browser would fetch or run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ayni.report import build, overview_png
from ayni.report.page import sample_groups
from ayni.report.results import METRICS, best_names, columns, headline, kind_of, number, read_run

MakeRun = Callable[..., Path]
OVERVIEW = ["headline", "results", "versions", "facts", "training", "rewards", "ceiling", "samples", "cost", "settings", "next"]  # fmt: skip
VERSION_1 = [f"version-1-{part}" for part in ("evaluation", "data", "rewards", "sampling", "training", "dialogues")]
VERSION_2 = [f"version-2-{part}" for part in ("evaluation", "ppo", "dialogues")]
SECTIONS = [*OVERVIEW, *VERSION_1, *VERSION_2, "lineage-picture", "artifacts"]


class Page(HTMLParser):
    """Sections by id, rows of each table, ids, and whatever would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "section" and given.get("id"):
            self.sections.append(str(given["id"]))
        if tag in ("script", "link", "img", "iframe", "object", "embed") or any(
            name.startswith("on") for name in given
        ):
            self.loads.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "tr" in self.open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data + " "


@pytest.fixture(scope="module")
def built(make_run: MakeRun) -> Path:
    run = make_run()
    assert build(run) == run / "report.html"
    return run


@pytest.fixture(scope="module")
def page_and_results(built: Path) -> tuple[str, dict[str, Any]]:
    return (built / "report.html").read_text(encoding="utf-8"), json.loads((built / "results.json").read_text())


def test_sections_in_a_readers_order(page_and_results: tuple[str, dict[str, Any]]) -> None:
    assert Page(page_and_results[0]).sections == SECTIONS


def test_page_is_self_contained(page_and_results: tuple[str, dict[str, Any]]) -> None:
    text = page_and_results[0]
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in without_namespaces
    assert "https://" not in without_namespaces
    assert Page(text).loads == []
    assert not re.findall(r"@import|url\((?!#)", text)


def test_ids_are_unique_and_links_inside_the_page_lead_somewhere(page_and_results: tuple[str, dict[str, Any]]) -> None:
    text = page_and_results[0]
    ids = Page(text).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_plots_take_their_colours_from_the_page(page_and_results: tuple[str, dict[str, Any]]) -> None:
    plots = re.findall(r"<svg.*?</svg>", page_and_results[0], flags=re.DOTALL)
    assert len(plots) >= 12
    for plot in plots:
        assert "var(--" in plot or plot.startswith(
            '<svg class="lineage"'
        )  # whose classes have theirs in the style sheet
        assert not re.findall(r"#[0-9a-f]{6}\b", plot)


def test_table_figures_equal_results_json(page_and_results: tuple[str, dict[str, Any]]) -> None:
    text, results = page_and_results
    rows = {row[0].strip(): row[1:] for row in reversed(Page(text).rows)}  # the first table wins
    for checkpoint in results["checkpoints"]:
        cells = rows[checkpoint["name"].replace("_", " ")]
        metrics = columns(results["checkpoints"])
        assert len(cells) == len(metrics)
        for cell, metric in zip(cells, metrics):
            found = checkpoint["metrics"][metric.name]
            scale = 100 if found["unit"] == "share" else 1
            if found["value"] is None:
                assert cell.split() == ["–"]
                continue
            value, around = cell.split()
            low, high = around.split("–")
            for shown, key in ((value, "value"), (low, "low"), (high, "high")):
                assert float(shown) == pytest.approx(found[key] * scale, abs=0.051)


def test_best_is_marked_among_the_trained_only(page_and_results: tuple[str, dict[str, Any]]) -> None:
    text, results = page_and_results
    wins = {metric.name: best_names(results["checkpoints"], metric) for metric in METRICS}
    assert wins["helpful_win_vs_sft"] == {"v2"}
    assert wins["violation"] == {"v2"}  # a constant policy has none at all, and is no contestant
    assert wins["false_refusal"] == {"base"}
    assert wins["mean_tokens"] == wins["kl"] == set()
    assert text.count('class="num best"') == sum(map(len, wins.values()))


def test_headline_states_what_happened(page_and_results: tuple[str, dict[str, Any]]) -> None:
    text = page_and_results[0].replace("\u2060", "")
    for sentence in (
        "On 480 prompts v2 beats SFT in 59.3% (54.9–63.7) by helpfulness, better beyond the interval.",
        "Harmful answers to adversarial prompts fell from 31.2% (25.3–37.1) at sft to 4.6%",
        "Refusals of harmless prompts rose from 2.1%",
        "Answers are 10% longer than sft’s (17.2 → 18.9 tokens).",
        "“always polite”, reaches 17.3% (13.9–20.7) against SFT and loses",
        "The stages took 8:35 in all",
    ):
        assert sentence in text


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.46, 0.58, "cannot tell from an even match"), (0.40, 0.49, "worse beyond the interval")],
)
def test_headline_does_not_call_a_draw_a_win(make_run: MakeRun, low: float, high: float, verdict: str) -> None:
    def change(results: dict[str, Any]) -> None:
        v2 = next(c for c in results["checkpoints"] if c["name"] == "v2")
        v2["metrics"]["helpful_win_vs_sft"].update(value=(low + high) / 2, low=low, high=high)

    assert verdict in " ".join(headline(read_run(make_run(change))))


def test_trap_23_a_constant_policy_that_wins_is_called_out(make_run: MakeRun) -> None:
    def change(results: dict[str, Any]) -> None:
        refuse = next(c for c in results["checkpoints"] if c["name"] == "always_refuse")
        refuse["metrics"]["helpful_win_vs_sft"].update(value=0.7, low=0.66, high=0.74)

    assert "this measure can be gamed, do not trust it" in " ".join(headline(read_run(make_run(change))))


def test_model_text_is_escaped(make_run: MakeRun) -> None:
    run = make_run(
        lambda results: results.update(name="<b>demo</b>", settings={"note": "</pre><script>alert(4)</script>"})
    )
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    path = run / "samples.json"
    samples = json.loads(path.read_text())
    samples["rows"][0]["answers"]["v2"] = evil
    samples["rows"][0]["messages"][-1]["content"] = "</p></article><svg onload=alert(3)>"
    samples["rows"][0]["labels"]["v2"] = "<i>right</i>"
    samples["rows"][0]["task"] = "<u>facts</u>"
    path.write_text(json.dumps(samples))
    (run / "base" / "logs" / "metrics.jsonl").write_text(
        '{"step": 0, "loss": 2, "perplexity": {"<script>$x$": 3.0}}\n{"step": 1, "loss": 1, "perplexity": {"<script>$x$": 2.0}}\n'
    )
    text = build(run).read_text(encoding="utf-8")
    assert Page(text).loads == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;svg onload=alert(3)&gt;" in text
    assert not re.findall(r"<(script|i|u|b)>", text)


def test_missing_optional_parts_leave_their_section_out(make_run: MakeRun) -> None:
    def change(results: dict[str, Any]) -> None:
        for key in ("best_of_k", "annotators", "reward_models", "settings"):
            del results[key]
        results["checkpoints"] = results["checkpoints"][:2]
        for checkpoint in results["checkpoints"]:
            checkpoint["metrics"] = {"gold_overlap": {"value": 0.25, "low": 0.2, "high": 0.3, "n": 90, "unit": "share"}}

    run = make_run(change)
    (run / "timings.json").unlink()
    (run / "samples.json").unlink()
    for directory in [path for path in run.iterdir() if path.is_dir()]:
        shutil.rmtree(directory)
    page = Page(build(run).read_text())
    assert page.sections == ["results", "next"]
    assert page.rows[0][1].split() == ["gold", "overlap", "↑"]


def test_null_reward_figures_and_a_partial_stage_are_passed_over(make_run: MakeRun) -> None:
    run = make_run(lambda results: results["reward_models"][0]["accuracy_by_strength"][0].update(value=None))
    partial = run / ".v3-ppo.partial" / "logs"
    partial.mkdir(parents=True)
    (partial / "metrics.jsonl").write_text('{"step": 0, "kl_k1": 1.0}\n')
    assert not any("partial" in stage for stage in read_run(run).curves)
    assert Page(build(run).read_text()).sections == SECTIONS


def test_same_files_same_page(built: Path, page_and_results: tuple[str, dict[str, Any]]) -> None:
    assert build(built).read_text(encoding="utf-8") == page_and_results[0]


def test_missing_or_empty_results_are_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"results\.json: no such file"):
        build(tmp_path)
    (tmp_path / "results.json").write_text('{"checkpoints": []}')
    with pytest.raises(ValueError, match="at least one entry"):
        build(tmp_path)


def test_samples_show_every_task_failures_too(make_run: MakeRun) -> None:
    run = read_run(make_run())
    groups = sample_groups(run)
    assert [group["task"] for group in groups] == [
        "facts",
        "sums",
        "small_talk",
        "system_instruction",
        "adversarial",
        "borderline",
    ]
    assert [len(group["rows"]) for group in groups] == [4] * 6
    failing = {row["id"] for row in run.samples if row["labels"]["v2"] in ("wrong", "rude", "off_topic", "harmful")}
    shown = {row["id"] for group in groups for row in group["rows"]}
    assert {row_id.split("-")[0] for row_id in failing} == {row_id.split("-")[0] for row_id in failing & shown}
    assert [answer["name"] for answer in groups[0]["rows"][0]["answers"]] == ["base", "sft", "v1", "v2"]


def test_kinds_of_checkpoints(page_and_results: tuple[str, dict[str, Any]]) -> None:
    kinds = [kind_of(checkpoint) for checkpoint in page_and_results[1]["checkpoints"]]
    assert kinds == ["trained"] * 2 + ["control"] + ["trained"] * 2 + ["constant"] * 3


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [(0.9125, "share", "91.2"), (1.0, "share", "100.0"), (None, "share", "–"), (0.0, "nats", "0.00"), (17.23, "tokens", "17.2"), (1234.5, "tokens", "1,234")],
)  # fmt: skip
def test_number(amount: float | None, unit: str, text: str) -> None:
    assert number(amount, unit) == text


def test_overview_png(make_run: MakeRun, tmp_path: Path) -> None:
    path = overview_png(make_run(), tmp_path / "docs" / "overview.png")
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[16:20], "big") > 1500
