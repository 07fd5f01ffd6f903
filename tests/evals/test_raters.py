"""Raters of pairs: orders, ties, what is no verdict, people's files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.evals.dialogues import dialogue
from ayni.evals.endpoint import Endpoint
from ayni.evals.judge_prompts import load_judge_prompt
from ayni.evals.judging import Verdict
from ayni.evals.memory import Memory
from ayni.evals.raters import ByEndpoint, ByPlugin, ByReward, Opinion, Pair, grade_of, people, told
from ayni.scoring.reward import load_reward_model
from ayni.text.dialogue import encode_chat
from ayni.text.tokenizer import load_tokenizer, train_tokenizer
from tests.evals.fake_judge import longer, serving
from tests.serve.tiny import write_reward_model

ROW: dict[str, Any] = {"id": "p", "prompt_kind": "helpful", "task": "chat", "meta": {}, "messages": [{"role": "user", "content": "Who bakes?"}]}  # fmt: skip
PROMPTS = {kind: load_judge_prompt(name) for kind, name in (("helpful", "helpfulness"), ("safety", "safety"))}


def pair(a: str, b: str, a_first: bool = True, row: dict[str, Any] = ROW) -> Pair:
    return Pair(row, "x", "y", (a,), (b,), a_first)


def grades(opinions: Sequence[Opinion | None]) -> list[tuple[int | None, ...]]:
    assert all(opinions)
    return [opinion.grades for opinion in opinions if opinion]


def test_a_verdict_that_changes_with_the_order_is_a_tie_and_the_nearer_grade_counts() -> None:
    for given, grade in {(3, 1): 1, (-2, -3): -2, (1, -1): 0, (2, 0): 0, (0, -3): 0, (0, 0): 0, (None, 2): None, (2, None): None, (2,): 2, (None,): None}.items():  # fmt: skip
        assert Opinion(given).grade == grade, given


def test_both_orders_are_asked_and_grades_are_always_for_a() -> None:
    """One judge reads, one always names the first; both whoever is shown first."""
    with serving(lambda model, a, b: "[[A>>B]]" if model == "first" else longer(model, a, b)) as judge:
        pairs = [pair("long answer", "short"), pair("short", "long answer", a_first=False), pair("even", "odd.")]
        reading = ByEndpoint("r", Endpoint(judge.url, "reads"), PROMPTS).rate(pairs)
        placing = ByEndpoint("f", Endpoint(judge.url, "first"), PROMPTS).rate(pairs)
        assert grades(reading) == [(1, 1), (-1, -1), (0, 0)]
        assert grades(placing) == [(2, -2)] * 3
        assert [opinion.grade for opinion in placing if opinion] == [0, 0, 0]
        shown = {(a, b) for model, a, b in judge.asked if model == "reads"}
        assert shown == {(a, b) for one, two in (("long answer", "short"), ("even", "odd.")) for a, b in ((one, two), (two, one))}  # fmt: skip
        assert len(judge.asked) == 2 * 6 - 2 * 2, "the second pair is the first with the names exchanged"


def test_replies_that_are_no_verdict_are_told_not_guessed() -> None:
    with serving(lambda _model, a, _b: "I cannot say." if a == "odd" else "[[A>B]]") as judge:
        [opinion] = ByEndpoint("e", Endpoint(judge.url, "m"), PROMPTS).rate([pair("even", "odd")])
    assert opinion is not None
    assert opinion.grades == (1, None)
    assert opinion.grade is None
    assert opinion.replies == ("[[A>B]]", "I cannot say.")


def test_the_judge_sees_the_dialogue_and_the_kind_of_prompt() -> None:
    row = {**ROW, "turns": ["Who bakes?", "And who mills?"], "prompt_kind": "safety"}
    both = Pair(row, "x", "y", ("The baker.", "The miller."), ("Nobody.", "I do."))
    seen: list[str] = []
    asked = ByEndpoint("e", Endpoint("http://127.0.0.1:1", "m"), PROMPTS)
    assert told(row, both.replies_a) == "Assistant: The baker.\n\nUser: And who mills?\n\nAssistant: The miller."
    with serving(lambda _m, a, b: seen.append(a) or "[[A=B]]") as judge:  # type: ignore[func-returns-value]
        asked = ByEndpoint("e", Endpoint(judge.url, "m"), PROMPTS)
        asked.rate([both])
    assert sorted(seen) == sorted(told(row, side) for side in (both.replies_a, both.replies_b))
    assert told(ROW, ("The baker.",)) == "The baker."


def test_a_plug_in_judges_the_last_reply_in_sight_of_those_before() -> None:
    class Counting:
        def __init__(self) -> None:
            self.seen: list[tuple[list[dict[str, str]], str]] = []

        def judge(self, row: dict[str, Any], answers: list[str]) -> list[Verdict]:
            self.seen += [(row["messages"], answer) for answer in answers]
            return [Verdict("x", None, None, None, False, False, float(len(answer))) for answer in answers]

    judge = Counting()
    row = {**ROW, "id": "q", "turns": ["Who bakes?", "And who mills?"]}
    found = ByPlugin("c", judge).rate([pair("abc", "ab"), pair("ab", "abc"), pair("ab", "cd"), Pair(row, "x", "y", ("one", "two"), ("1", "2"))])  # fmt: skip
    assert grades(found) == [(1,), (-1,), (0,), (1,)]
    assert (dialogue(row, ["one", "two"])[:-1], "two") in judge.seen
    assert [m["content"] for m in judge.seen[-1][0]] == ["Who bakes?", "1", "And who mills?"]


def test_a_reward_models_grades_are_its_scores_beyond_the_band(tmp_path: Path) -> None:
    """Scores recomputed one by one; the second time none is computed."""
    train_tokenizer(["Who bakes? The baker does. Nobody knows."] * 30, tmp_path / "tok", vocab_size=300)
    tokenizer = load_tokenizer(tmp_path / "tok")
    directory = write_reward_model(tmp_path / "rm", tokenizer, seed=3)
    model = load_reward_model(directory)
    texts = ["The baker does.", "Nobody knows.", "Who?", "The baker does. The baker does. The baker does."]
    pairs = [pair(a, b) for a in texts for b in texts if a != b]
    rater = ByReward("r", model, tokenizer, 160, 0.405, Memory(tmp_path / "scores.jsonl"))

    def score(text: str) -> float:
        ids, ours = encode_chat(tokenizer, [*ROW["messages"], {"role": "assistant", "content": text}], "last")
        start = ours.index(True)
        return float(model.score([ids[:start]], [ids[start:]], 160))

    wanted = [grade_of(score(p.replies_a[0]) - score(p.replies_b[0]), 0.405) for p in pairs]
    assert [given[0] for given in grades(rater.rate(pairs))] == wanted
    assert len(set(wanted)) > 2
    blind = ByReward("r", None, tokenizer, 160, 0.405, Memory(tmp_path / "scores.jsonl"))  # type: ignore[arg-type]
    assert [given[0] for given in grades(blind.rate(pairs))] == wanted
    assert torch.isfinite(torch.tensor([score(text) for text in texts])).all()


def test_grades_of_a_reward_difference() -> None:
    logit = lambda p: math.log(p / (1 - p))  # noqa: E731
    for ahead, grade in ((0.0, 0), (0.4, 0), (0.41, 1), (logit(0.79), 1), (logit(0.81), 2), (logit(0.951), 3), (1e6, 3)):  # fmt: skip
        assert grade_of(ahead, 0.405) == grade
        assert grade_of(-ahead, 0.405) == -grade
    assert grade_of(0.01, 0.0) == 1


def judged(annotator: str, chosen: str, rejected: str, **more: Any) -> str:
    say = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    return json.dumps({"prompt": ROW["messages"], "chosen": say(chosen), "rejected": say(rejected), "annotator": annotator, **more})  # fmt: skip


def test_people_are_raters_each_found_by_the_words(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join([
        judged("Ann", "The baker.", "Nobody.", strength=3), judged("Ben", "Nobody. ", "The baker.", strength=1),
        judged("Cem", "The baker.", "Nobody.", strength=0), judged("Dot", "The baker.", "Nobody."),
        judged("Ann", "Other.", "Nobody.", strength=2),
    ]))  # fmt: skip
    raters = people(path)
    assert [rater.name for rater in raters] == ["people:Ann", "people:Ben", "people:Cem", "people:Dot"]
    asked = [pair("The baker.", "Nobody."), pair("Nobody.", "The baker."), pair("Never.", "Nobody.")]
    found = [[None if o is None else o.grade for o in rater.rate(asked)] for rater in raters]
    assert found == [[3, -3, None], [-1, 1, None], [0, 0, None], [1, -1, None]]
    path.write_text(judged("Ann", "a", "b") + "\n" + judged("Ann", "b", "a"))
    with pytest.raises(ValueError, match="preference 2: Ann judged this pair before"):
        people(path)
