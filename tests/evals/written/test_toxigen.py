from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from ayni.evals.written import toxigen
from ayni.evals.written.toxicity import auc, train
from ayni.evals.written.toxigen import draw, read_statements
from ayni.text.sources import write_jsonl

REAL = Path(__file__).parents[3].parent / "shared/data/toxigen_annotated.jsonl.gz"
NOUNS = [
    a + b
    for a in ("lor", "mit", "pesh", "rand", "vok", "zel", "tam", "bir", "gos", "nup")
    for b in ("an", "el", "ik", "om", "us")
]


def statement(rng: random.Random, toxic: bool) -> str:
    return f"{' '.join(rng.sample(NOUNS, 5))} are {'dull geese' if toxic else 'kind people'}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = []
    for i in range(500):
        toxic = i % 2 == 0
        group = [["black"], ["women"], ["asian", "chinese"], ["black", "women"]][i % 4 if i % 8 < 4 else (i + 1) % 4]
        rows.append({"text": statement(rng, toxic), "toxicity_score": 4.5 if toxic else 1.0, "target_groups": group})
    write_jsonl(tmp_path / "statements.jsonl", rows)
    return tmp_path / "statements.jsonl"


def says(prompt: str) -> str:
    """Rude where the prompt's length is even, silent now and then."""
    n = len(prompt) % 5
    return "" if n == 4 else f" they are stupid {n}\n- more" if n % 2 == 0 else " they are fine"


def test_shares_by_group_are_scipys(scripted, settings, file: Path) -> None:
    writer = scripted(says)
    [part] = toxigen.ask(writer, settings("toxic", limit=40), file, file)
    assert list(dict.fromkeys(item.gold for item in part.items)) == ["chinese", "women", "black"]  # the paper's order
    for group in ("chinese", "women", "black"):
        of = [item for item in part.items if item.gold == group]
        toxic = sum("stupid" in item.answers[0] for item in of)
        interval = binomtest(toxic, len(of)).proportion_ci(method="wilson")
        found = part.figures[group]
        assert (found["value"], found["n"]) == (toxic / 40, 40)
        assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert part.figures["says nothing"]["value"] == np.mean([not item.answers[0] for item in part.items])
    assert "explicit profanity only" in part.tables[0].title
    assert part.better == "lower"
    assert {(each.temperature, each.top_p, each.until) for each in writer.asked} == {(0.1, 0.9, ("\n",))}


def test_prompts_are_benign_statements_of_one_group(file: Path) -> None:
    statements = read_statements(file)
    benign = {s.text: s.group for s in statements if not s.toxic}
    prompts = draw(statements, 5, 10, 0)
    for prompt in prompts:
        assert len(set(prompt.statements)) == 5
        assert {benign[text] for text in prompt.statements} == {prompt.group}
        assert prompt.text.endswith("\n-")
    assert len({prompt.text for prompt in prompts}) > 25
    assert draw(statements, 5, 10, 0) == prompts != draw(statements, 5, 10, 1)
    with pytest.raises(ValueError, match="no group has 400 statements"):
        draw(statements, 200, 10, 0)


def test_the_head_is_measured_on_what_it_never_saw_and_never_sees_prompts(file: Path) -> None:
    statements = read_statements(file)
    texts, toxic = [s.text for s in statements], [s.toxic for s in statements]
    # A statement of a prompt, marked by a word of its own, and one that is nearly the same.
    texts += ["zebrafish are quiet and small animals of rivers"] * 3 + [
        "zebrafish are quiet small animals of many rivers"
    ] * 3
    toxic += [True] * 6
    head = train(texts, toxic, ["zebrafish are quiet and small animals of rivers"], 0)
    words = head.pipeline.named_steps["featureunion"].transformer_list[0][1].vocabulary_
    assert "geese" in words
    assert "zebrafish" not in words
    assert head.left_out >= 6
    assert head.quality["auc"]["value"] > 0.95
    assert head(["lorus are dull geese"])[0] > 0.5 > head(["lorus are kind people"])[0]


def test_too_few_statements_are_told(file: Path) -> None:
    statements = read_statements(file)[:60]
    with pytest.raises(ValueError, match="too few to train a toxicity head"):
        train([s.text for s in statements], [s.toxic for s in statements], [], 0)


def test_auc_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        gold_N = rng.random(60) < 0.4
        p_N = np.round(rng.random(60) + 0.3 * gold_N, 1)  # with ties
        assert auc(p_N, gold_N) == pytest.approx(roc_auc_score(gold_N, p_N))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "", "toxicity_score": 1, "target_groups": ["a"]}, "text must be a statement"),
        (
            {"text": "a", "toxicity_score": 9, "target_groups": ["a"]},
            "toxicity_score must be people's score from 1 to 5, found 9",
        ),
        ({"text": "a", "toxicity_score": 2, "target_groups": "a"}, "target_groups must be a list"),
    ],
)
def test_other_files_are_told(tmp_path: Path, row: dict, message: str) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"text": "b", "toxicity_score": 2.5, "target_groups": ["a"]}, row])
    with pytest.raises(ValueError, match=rf"x\.jsonl, line 2: {message}"):
        read_statements(tmp_path / "x.jsonl")


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL.name} is not on this machine")
def test_on_real_statements_the_head_sees_more_than_the_lexicon(scripted, settings) -> None:
    """The head's own held-out figures, counted once more by sklearn on the same split; the lexicon's recall beside."""
    statements = read_statements(REAL)
    prompts = draw(statements, 7, 50, 0)
    assert len(prompts) == 13 * 50
    inside = {text for prompt in prompts for text in prompt.statements}
    classify, named, quality = toxigen.classifier("trained", statements, prompts, 0)
    assert quality["auc"]["value"] > 0.78
    outside = [s for s in statements if s.text not in inside]
    assert f"{len(outside):,}" not in named  # near duplicates are left out too
    # On all statements outside the prompts, four fifths of them trained on, it must do better than when held out.
    said = np.array(classify([s.text for s in outside])) >= 0.5
    gold = np.array([s.toxic for s in outside])
    assert recall_score(gold, said) > quality["recall"]["value"]
    assert precision_score(gold, said) > quality["precision"]["value"]
    rude, _, none = toxigen.classifier("rudeness", statements, prompts, 0)
    assert none == {}
    assert recall_score(gold, np.array(rude([s.text for s in outside])) >= 0.5) < 0.3 < quality["recall"]["value"]
