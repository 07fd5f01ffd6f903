"""AlpacaEval's judgements as preferences, and grades of single answers; bad input by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ayni.text.sources import read_preferences, read_ratings, write_jsonl

ALPACA = Path(__file__).parents[2].parent / "shared/data/alpacaeval_preferences_train.jsonl.gz"
HH = Path(__file__).parents[2].parent / "shared/data/hh_harmless_train.jsonl.gz"


def judgement(preference_2: Any, **more: Any) -> dict[str, Any]:
    row = {"prompt": "Name a bird.", "output_1": "A wren.", "output_2": "A stone.", "preference_2": preference_2}
    return {**row, "generator_1": "one", "generator_2": "two", "judge": "a judge", **more}


@pytest.mark.parametrize(
    ("preference_2", "chosen", "strength"),
    [(0.0, 1, 3), (0.05, 1, 3), (0.06, 1, 2), (0.3, 1, 1), (0.45, 1, 0), (0.55, 2, 0), (0.6, 2, 1), (0.8, 2, 2), (1, 2, 3)],
)  # fmt: skip
def test_the_side_the_judge_leans_to_is_chosen_and_how_far_is_the_strength(
    tmp_path: Path, preference_2: float, chosen: int, strength: int
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [judgement(preference_2)])
    (row,) = read_preferences(tmp_path / "a.jsonl")
    outputs = ["A wren.", "A stone."]
    assert row["chosen"] == [{"role": "assistant", "content": outputs[chosen - 1]}]
    assert row["rejected"] == [{"role": "assistant", "content": outputs[2 - chosen]}]
    assert row["strength"] == strength
    assert row["variants"] == (["one", "two"] if chosen == 1 else ["two", "one"])
    assert (row["annotator"], row["source"], row["prompt_kind"]) == ("a judge", "a", "helpful")
    assert row["prompt"] == [{"role": "user", "content": "Name a bird."}]


def test_the_older_scale_and_the_keys_alpacaeval_itself_writes(tmp_path: Path) -> None:
    row = {"instruction": "Name a bird.", "output_1": "A wren.", "output_2": "A stone.", "preference": 1.03, "annotator": "x"}  # fmt: skip
    write_jsonl(tmp_path / "a.jsonl", [row])
    (found,) = read_preferences(tmp_path / "a.jsonl")
    assert (found["chosen"][0]["content"], found["strength"], found["annotator"]) == ("A wren.", 3, "x")


def test_undecided_rows_are_left_out(tmp_path: Path) -> None:
    rows = [judgement(0.5), judgement(0.1, output_2="A wren. "), judgement(0.2), judgement(0.9, output_1=" ")]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert len(read_preferences(tmp_path / "a.jsonl")) == 1
    write_jsonl(tmp_path / "b.jsonl", rows[:2])
    with pytest.raises(ValueError, match=r"b\.jsonl: no preferences in it"):
        read_preferences(tmp_path / "b.jsonl")


RATED = {
    "messages": [{"role": "user", "content": "Name a bird."}],
    "answer": "A wren.",
    "ratings": {"Ann": 6, "Ben": 7},
}


@pytest.mark.parametrize(
    ("read", "bad", "says"),
    [
        (read_preferences, judgement(1.5), ["preference_2 is 1.5", "from 0 to 1"]),
        (read_preferences, judgement(float("nan")), ["preference_2 is nan"]),
        (read_preferences, judgement("0.3"), ["preference_2 is '0.3'"]),
        (read_preferences, judgement(True), ["preference_2 is True"]),
        (read_preferences, judgement(0.1, output_2=None), ["needs output_2 as text"]),
        (read_preferences, judgement(0.1, prompt=["x"]), ["needs prompt as text"]),
        (read_preferences, {"prompt": "a", "output_1": "b", "output_2": "c"}, ["needs preference_2", "found prompt"]),
        (read_preferences, {"prompt": "a", "output_1": "b", "output_2": "c", "preference": 0.4}, ["from 1 to 2"]),
        (read_ratings, {"messages": RATED["messages"], "answer": "A wren."}, ["messages (or prompt), answer and ratings"]),
        (read_ratings, {**RATED, "ratings": {}}, ['{"Ann": 5, "Ben": 7}']),
        (read_ratings, {**RATED, "ratings": {"Ann": "good"}}, ["ratings must be like", "good"]),
        (read_ratings, {**RATED, "ratings": [6, 7]}, ["[6, 7]"]),
        (read_ratings, {**RATED, "answer": 3}, ["answer must be text"]),
        (read_ratings, {**RATED, "prompt_kind": "safe"}, ["prompt_kind is 'safe'"]),
    ],
)  # fmt: skip
def test_mistakes_name_file_and_line(tmp_path: Path, read: Any, bad: dict[str, Any], says: list[str]) -> None:
    good = judgement(0.1) if read is read_preferences else RATED
    (tmp_path / "rows.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2") as error:
        read(tmp_path / "rows.jsonl")
    for part in says:
        assert part in str(error.value)


def test_ratings_are_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [RATED, {"prompt": "Why?", "answer": "So.", "ratings": {"A": 1.5}, "prompt_kind": "safety"}])  # fmt: skip
    first, second = read_ratings(tmp_path / "r.jsonl")
    assert first == {"prompt_kind": "helpful", **RATED}
    assert second["messages"] == [{"role": "user", "content": "Why?"}]
    assert second["prompt_kind"] == "safety"


@pytest.mark.skipif(not ALPACA.is_file(), reason="../shared/data/alpacaeval_preferences_train.jsonl.gz is not there")
def test_alpacaevals_published_judgements() -> None:
    rows = read_preferences(ALPACA)
    assert 3500 < len(rows) < 3752, "equal outputs and even judgements are left out"
    assert sum(row["strength"] == 3 for row in rows) > 2500, "most judgements are sure"
    longer = sum(len(row["chosen"][0]["content"]) > len(row["rejected"][0]["content"]) for row in rows) / len(rows)
    assert longer == pytest.approx(0.81, abs=0.05), "the length bias the file is known for"


@pytest.mark.skipif(not HH.is_file(), reason="../shared/data/hh_harmless_train.jsonl.gz is not there")
def test_hh_harmless_says_no_strength() -> None:
    rows = read_preferences(HH)
    assert len(rows) > 1100
    assert {row["strength"] for row in rows} == {None}
