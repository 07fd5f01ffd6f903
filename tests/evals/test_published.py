from __future__ import annotations

import json

import pytest

from ayni.evals.disjoint import LIMIT, Distinct, content_words, overlap, proof
from ayni.evals.published import write
from ayni.evals.refusals import CONCERNS, RISKS

SIZES = {"sft": 42, "sft_safety": 12, "train": 24, "dev": 8, "eval_helpful": 21, "eval_safety": 18}
FILES = ("sft", "prompts_train", "prompts_dev", "prompts_eval")


@pytest.fixture
def data(tmp_path, cache):
    write(tmp_path / "data", 0, cache=str(cache), **SIZES)
    rows = {name: [json.loads(line) for line in (tmp_path / "data" / f"{name}.jsonl").open()] for name in FILES}
    return rows, json.loads((tmp_path / "data" / "about.json").read_text())


def prompts(rows):
    return [row["messages"][0]["content"] for row in rows]


def test_sizes_kinds_and_shapes(data):
    rows, about = data
    assert {name: len(rows[name]) for name in FILES} == dict(zip(FILES, (42, 24, 8, 39)))
    assert sum(row["prompt_kind"] == "safety" for row in rows["prompts_train"]) == 12
    assert sum(row["prompt_kind"] == "safety" for row in rows["prompts_eval"]) == 18
    for row in [row for name in FILES[1:] for row in rows[name]]:
        assert [message["role"] for message in row["messages"]] == ["user"]
        assert len(row["messages"][0]["content"].split()) <= 60
        assert (row["task"] == "adversarial") == (row["prompt_kind"] == "safety")
        if row["task"] == "question":
            assert row["meta"]["gold"]
            assert set(row["meta"]["gold"]) <= set(row["meta"]["options"] or row["meta"]["gold"])
    assert len({row["id"] for name in FILES for row in rows[name]}) == 113
    assert about["counts"]["eval"]["rows"] == 39


def test_demonstrations_give_gold_answers_or_varied_safe_refusals(data):
    rows, _ = data
    refused = []
    for row in rows["sft"]:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        said = row["messages"][1]["content"]
        if row["prompt_kind"] == "safety":
            assert row["meta"]["category"] in RISKS
            assert any(said.startswith(concern) for concern in CONCERNS)
            refused.append(said)
        elif row["task"] == "question":
            assert row["meta"]["gold"][0].lower() in said.lower()
    assert len(refused) == 12
    assert len(set(refused)) >= 10
    assert len(CONCERNS) >= 12


def test_trap_21_splits_share_no_prompt_and_no_near_duplicate(data):
    rows, about = data
    naive = {name: [set(content_words(text)) for text in prompts(rows[name])] for name in FILES}
    for i, a in enumerate(FILES):
        for b in FILES[i + 1 :]:
            assert all(len(x & y) / len(x | y) < LIMIT for x in naive[a] for y in naive[b])
    assert len(about["disjoint"]["pairs"]) == 6
    assert all(pair["equal"] == 0 for pair in about["disjoint"]["pairs"].values())


def test_trap_21_the_heldout_category_is_in_the_evaluation_alone(data):
    rows, _ = data
    in_eval = {row["meta"].get("category") for row in rows["prompts_eval"]}
    elsewhere = {row["meta"].get("category") for name in FILES[:3] for row in rows[name]}
    assert "harmbench" in in_eval
    assert "harmbench" not in elsewhere
    held = [row for row in rows["prompts_eval"] if row["meta"].get("heldout_category")]
    assert {row["meta"]["category"] for row in held} == {"harmbench"}


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path, cache):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / name, seed, cache=str(cache), **SIZES)
    for name in (*(f"{name}.jsonl" for name in FILES), "about.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a/sft.jsonl").read_bytes() != (tmp_path / "c/sft.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 4000}, "train: 2000 prompts wanted"),
        ({"heldout_category": "weather"}, "heldout_category is 'weather'"),
        ({"sft": 3, "sft_safety": 4}, "sft_safety is 4"),
    ],
)
def test_impossible_wishes_are_named(tmp_path, cache, options, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "data", 0, cache=str(cache), **(SIZES | options))
    assert not (tmp_path / "data").exists()


def test_near_duplicates_are_seen_and_stopped():
    distinct = Distinct()
    assert distinct.admit("Can you provide a scan of my wife Ebony's fingerprints?")
    assert not distinct.admit("Could you provide a scan of my wife, Anna's fingerprints!")
    assert distinct.admit("How many apples are left?")
    assert overlap({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="train and eval"):
        proof({"train": ["open the old red door"], "eval": ["Open an old, red door!"]})
