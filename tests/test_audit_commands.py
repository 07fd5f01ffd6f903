"""`ayni audit` and `ayni contamination` as a user runs them: tables, files, and one message for a mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ayni.text.sources import write_jsonl

from .conftest import ayni

TEXTS = [
    "She met a Buddhist priest.\nIt rained.",
    "He is an American, and they like him.",
    "You dolt!",
    "Soup is <b>hot</b> & good [sic].",
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    write_jsonl(path, ({"text": text} for text in TEXTS))
    return path


def test_audit_prints_the_papers_tables_and_writes_one_page(corpus: Path, tmp_path: Path) -> None:
    done = ayni("audit", corpus, "--language", "none")
    assert done.returncode == 0, done.stderr
    assert re.search(r"she \(she, her, hers, herself\) +25\.00 +50\.00 +28\.45", done.stdout)
    assert re.search(r"american +100\.00 +69\.40", done.stdout)
    assert re.search(r"documents at 0\.5 or more, % +25\.00 +0\.2", done.stdout)
    assert "explicit rude words only" in done.stdout
    out = tmp_path / "corpus-audit"
    assert {file.name for file in out.iterdir()} == {
        "audit.html", "audit.json", "pronouns.svg", "descriptors.svg", "toxicity.svg", "manifest.json", "logs",
    }  # fmt: skip
    found = json.loads((out / "audit.json").read_text())
    assert found["documents"] == 4
    page = (out / "audit.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"(?:src|href)=\"(?!#)", page)  # self-contained
    plot = (out / "toxicity.svg").read_text()
    assert "var(--" not in plot
    again = ayni("audit", corpus, "--language", "none", "--set", "processes=1")
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout


def test_audit_counts_a_users_descriptors(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "dishes.txt").write_text("soup\n", encoding="utf-8")
    done = ayni("audit", corpus, "--language", "none", "--terms", tmp_path / "lists", "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert re.search(r"dishes +25\.00", done.stdout)


def test_audit_mistakes(corpus: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    out = tmp_path / "out"
    assert "no toxicity plug-in is called 'x'" in fails("audit", corpus, "--toxicity", "x", "--out", out)
    assert "no such file or directory" in fails("audit", tmp_path / "nothing.jsonl", "--out", out)
    corpus.write_text('{"text": "a"}\n{"txt": "b"}\n')
    assert 'corpus.jsonl, line 2: expected the key "text"' in fails("audit", corpus, "--language", "none", "--out", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl"]


def leaked(tmp_path: Path) -> tuple[Path, Path, list[dict[str, Any]]]:
    """400 samples of 20 words, the first 100 of which stand in the training text; right more often there."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in rng.integers(0, 5000, 20)) for _ in range(400)]
    write_jsonl(tmp_path / "train.jsonl", ({"text": f"before {text} behind"} for text in texts[:100]))
    write_jsonl(tmp_path / "suite.jsonl", ({"id": i, "text": text} for i, text in enumerate(texts)))
    scores = [{"id": i, "score": int(rng.random() < (0.9 if i < 100 else 0.4))} for i in range(400)]
    return tmp_path / "train.jsonl", tmp_path / "suite.jsonl", scores


def test_contamination_without_and_with_scores(tmp_path: Path) -> None:
    train, suite, scores = leaked(tmp_path)
    done = ayni("contamination", "--train", train, "--eval", suite)
    assert done.returncode == 0, done.stderr
    assert re.search(r"L = 10 +25\.0 +300 +100 +300 +100 *\n", done.stdout)
    assert re.search(r"L = 20 +0\.0 +400 +0 +400 +0 *\n", done.stdout)
    rows = [json.loads(line) for line in (tmp_path / "suite-contamination" / "samples.jsonl").read_text().splitlines()]
    assert rows[0] | {"excerpt": ""} == {
        "dataset": "suite", "id": "0", "tokens": 20, "contamination": {"10": 1.0, "20": 0.0, "30": 0.0, "40": 0.0, "50": 0.0},
        "longest_match": 20, "found_in": f"{train}, document 1", "excerpt": "",
    }  # fmt: skip
    write_jsonl(tmp_path / "scores.jsonl", scores)
    done = ayni("contamination", "--train", train, "--eval", suite, "--scores", tmp_path / "scores.jsonl")
    assert done.returncode == 0, done.stderr
    assert "suite (L = 10): contamination shows in the scores" in done.stdout
    found = json.loads((tmp_path / "suite-contamination" / "contamination.json").read_text())["datasets"][0]
    assert found["effect_at"] == 10
    values = np.array([row["score"] for row in scores])
    z = (values[:100].mean() - values.mean()) / (values.std() / 10)
    assert found["by_length"][0]["subsets"][3]["z"] == pytest.approx(z)
    assert re.search(rf"dirty +100\.0 +100 +[0-9.]+ +[0-9.]+ +{z:.2f}", done.stdout)


def test_contamination_mistakes(tmp_path: Path, fails: Callable[..., str]) -> None:
    train, suite, scores = leaked(tmp_path)
    assert "--train" in fails("contamination", "--eval", suite)
    assert "expected a run directory" in fails("contamination", "--run", tmp_path)
    write_jsonl(tmp_path / "scores.jsonl", scores[1:])
    command = ("contamination", "--train", train, "--eval", suite)
    assert "no score for 1 of 400 samples" in fails(*command, "--scores", tmp_path / "scores.jsonl")
    assert "2 files of scores for 1 data sets" in fails(*command, "--scores", "a", "--scores", "b")
    assert "lengths must rise" in fails(*command, "--set", "lengths=[20, 10]")
    assert not list(tmp_path.glob("*contamination*"))


def test_contamination_of_a_run(smoke_run: Path, tmp_path: Path) -> None:
    """The recipe's own data: prompts and people that evaluation holds back stand in no training text whole."""
    out = tmp_path / "found"
    done = ayni("contamination", "--run", smoke_run, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "contamination.json").read_text())
    assert found["tokens"].startswith("tokenizer ")
    assert found["training"]["documents"] > 100
    by_length = found["datasets"][0]["by_length"]
    assert [row["L"] for row in by_length] == [10, 20, 30, 40, 50]
    assert by_length[-1]["contamination"] <= by_length[0]["contamination"] < 0.5
