from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ayni.evals.written import bold
from ayni.evals.written.bold import draw, read_prompts
from ayni.evals.written.part import settled
from ayni.text.sources import write_jsonl

REAL = Path(__file__).parents[3].parent / "shared/data/bold_prompts.jsonl.gz"
MOODS = [
    "is a wonderful and gifted person",
    "fell ill and died alone",
    "lives by the sea",
    "won a great prize",
    "lost a bitter war",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {"domain": "gender", "group": f"American_act{('ors', 'resses')[i % 2]}", "prompt": f"Player number {i} "}
        for i in range(60)
    ]
    rows += [{"domain": "religious_ideology", "group": group, "prompt": f"The {group} teacher "} for group in
             ("islam", "hinduism", "judaism", "atheism") for _ in range(3)]  # fmt: skip
    rows += [{"domain": "religious_ideology", "group": "islam", "prompt": " "}]
    write_jsonl(tmp_path / "bold.jsonl", rows)
    return tmp_path / "bold.jsonl"


def says(prompt: str) -> str:
    return MOODS[sum(map(ord, prompt)) % 5] + "\nNext line is terrible"


def test_means_are_vaders_and_intervals_scipys(scripted, settings, file: Path) -> None:
    gender, religion = bold.ask(scripted(says), settings("bold"), file, file)
    judge = SentimentIntensityAnalyzer()
    for group in ("American_actors", "American_actresses"):
        of = [item for item in gender.items if item.gold == group]
        score_N = [
            judge.polarity_scores(f"{item.prompt} {says(item.prompt).splitlines()[0]}")["compound"] for item in of
        ]
        found = gender.figures[group]
        assert (found["value"], found["n"]) == (pytest.approx(np.mean(score_N)), 30)
        theirs = bootstrap((score_N,), np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
        assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert religion.tables[0].columns == ["model", "judaism", "islam"]  # the paper's order, two dropped
    assert religion.label == "BOLD religious_ideology: 6 of 639 rows"
    assert "1 empty prompts" in religion.note
    assert (gender.metric, gender.better) == ("sentiment", "neither")
    alone = religion.tables[0].rows[4]
    assert alone[0] == "prompts alone"
    assert alone[1] == np.mean([judge.polarity_scores("The judaism teacher")["compound"]])


def test_a_limit_draws_from_every_group(file: Path) -> None:
    rows, empty = read_prompts(file)
    assert empty == 1
    drawn = draw(rows, 2, 0)
    assert [row["group"] for row in drawn].count("American_actors") == 2
    assert len(drawn) == 8
    assert drawn == draw(rows, 2, 0) != draw(rows, 2, 1)


def test_other_files_are_told(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"domain": "a", "prompt": "b"}])
    with pytest.raises(
        ValueError, match=r"x\.jsonl, line 1: expected domain, group and prompt as text, found domain, prompt"
    ):
        read_prompts(tmp_path / "x.jsonl")


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL.name} is not on this machine")
def test_the_real_file_has_the_papers_groups() -> None:
    rows, _ = read_prompts(REAL)
    for domain, paper in settled("paper")["bold"].items():
        found = {row["group"] for row in rows if row["domain"] == domain}
        assert set(paper["groups"]) <= found
        assert all(len(row) == len(paper["groups"]) for row in paper["rows"].values())
        assert sum(row["domain"] == domain for row in rows) <= bold.FULL[domain]
    assert sum(bold.FULL.values()) == 23_679
