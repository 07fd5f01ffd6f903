"""The page and the tables of `ayni compare`: every figure, every text escaped, nothing fetched, sound in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayni.artifacts import write_json
from ayni.config_measuring import CompareSettings
from ayni.report import compare as report
from ayni.stages import compare
from ayni.text.sources import read_jsonl, write_jsonl
from tests.chromium import needs_chromium

Row = dict[str, Any]
EVIL = (
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\"> & {{ 7 * 7 }} </style>"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve prompts, three models, two raters; words that would do harm if they were not escaped."""
    out = tmp_path_factory.mktemp("page")
    rows: list[Row] = []
    for a, b in (("x", "y"), ("x", "z"), ("y", "z")):
        for i in range(12):
            grades = [(2, 1), (1, -1), (-3, -3), (None, 0)][i % 4]
            known = None if None in grades else 0 if grades[0] * grades[1] < 0 else min(grades, key=abs)  # type: ignore[operator, arg-type, type-var]
            said = {"endpoint:m": {"grades": list(grades), "grade": known, "replies": [EVIL, "[[A>B]]"]}, "world": {"grades": [1], "grade": 1}}  # fmt: skip
            two = i % 3 == 0
            rows.append({"id": f"p{i}", "prompt_kind": "safety" if i % 4 == 3 else "helpful", "task": "chat",
                         "messages": [{"role": "system", "content": EVIL}, {"role": "user", "content": f"{EVIL} {i}"}],
                         "further": ["And then?"] if two else [], "turns": 1 + two, "a": a, "b": b,
                         "answers": {"a": [EVIL, "Then."][: 1 + two], "b": ["", "Then so. " * 60][: 1 + two]}, "shown_first": "a",
                         "said": said, "equal": False, "grade": (1, 0, -1, None)[i % 4], "longer": 10 * (i - 5)})  # fmt: skip
    answers = {name: {f"p{i}": {"replies": ["a"], "tokens": [3 + i], "ended": [True]} for i in range(12)} for name in "xyz"}  # fmt: skip
    about = {"shared": [f"rm learned from {EVIL}"], "unknown": ["z was imported"]}
    write_jsonl(out / compare.COMPARISONS, rows)
    settings = CompareSettings(judges=["world"], samples=10)
    write_json(out / compare.RESULTS, compare.results(settings, rows, answers, ["endpoint:m", "world"], about))
    report.write_page(out)
    return out


def test_tables_say_the_figures(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report.read_json(out / compare.RESULTS)
    wins, strengths, places, agreement = report.tables(found)
    assert "MARKED" in wins["title"]
    assert wins["rows"][0][:4] == ["x against y", "33.3", "33.3", "33.3"]
    assert wins["rows"][0][4].startswith("50.0 [")
    assert wins["rows"][0][-1] == "9"
    assert {row[0].strip() for row in wins["rows"][1:5]} == {"helpful", "safety", "single-turn", "multi-turn"}
    [safety] = [row for row in wins["rows"][:5] if row[0].strip() == "safety"]
    assert safety[1:6] == ["–"] * 5
    assert [row[0] for row in strengths["rows"]] == ["x", "y", "z"]
    assert all(row[1].startswith(("0.00 [", "-0.00 [")) for row in strengths["rows"]), "all have won as often as lost"
    assert places["rows"][0] == ["endpoint:m", "72", "9", "66.7", "33.3", "0.0"]
    assert places["rows"][1] == ["world", "36", "0", "–", "–", "–"]
    assert [row[0] for row in agreement["rows"]] == ["all", "helpful"]
    report.show(out)
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("9 pairs have no verdict", "not on record: z was imported", "AC2 0.37 to 0.55"):
        assert words in shown


def test_samples_take_wins_losses_and_ties_in_turn(out: Path) -> None:
    rows = read_jsonl(out / compare.COMPARISONS)
    chosen = report.chosen(rows, 12)
    assert sorted(str(row["grade"]) for row in chosen) == sorted(["1", "0", "-1", "None"] * 3)
    assert len({(row["a"], row["b"]) for row in chosen}) == 3
    assert [rows.index(row) for row in chosen] == sorted(rows.index(row) for row in chosen)
    assert len(report.chosen(rows, 99)) == 36
    assert report.chosen([{**row, "equal": True} for row in rows], 5) == []


def test_what_a_rater_said_in_words() -> None:
    row = {"a": "x", "b": "y"}
    say = lambda *grades: report.in_words(row, {"grades": list(grades)})  # noqa: E731
    assert say(3) == "x much better"
    assert say(-1) == "y slightly better"
    assert say(2, 2) == "x better, in both orders"
    assert say(1, -2) == "x slightly better with x first; y better with y first"
    assert say(None, 0) == "no verdict with x first; about the same with y first"


def test_every_text_is_escaped_and_nothing_is_fetched(out: Path) -> None:
    page = (out / report.PAGE).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("</style>") == page.count("<style") == 2, "the page's own and the plot's"
    assert "&lt;script&gt;document.title" in page
    assert "{{ 7 * 7 }}" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page == report.write_page(out).read_text(), "the same figures, the same bytes"


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_in_a_browser_nothing_runs_and_nothing_sticks_out(out: Path, browser: Any, width: int, scheme: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: problems.append(request.url) if not request.url.startswith("file:") else None)
    page.goto((out / report.PAGE).as_uri())
    assert problems == []
    assert page.title() == "3 models compared – Ayni compare"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("article").count() == 10
    assert page.locator("svg").count() == 1
    page.close()
