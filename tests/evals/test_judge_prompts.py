"""What an endpoint is asked, and which replies count."""

from __future__ import annotations

from pathlib import Path

import pytest

from ayni.evals.judge_prompts import known_prompts, load_judge_prompt

MINE = """
user: "{question} | {first} | {second}"
verdicts: {one: 1, two: -1}
"""


def test_only_one_listed_verdict_counts() -> None:
    prompt = load_judge_prompt("helpfulness")
    for reply, grade in {
        "A does it. [[A>>>B]]": 3,
        "[[A>>B]]": 2,
        "[[ A>B ]]": 1,
        "Alike.\n[[A=B]]\n": 0,
        "[[B>A]]": -1,
        "First I thought [[B>>A]], and so it is: [[B>>A]]": -2,
        "[[B>>>A]]": -3,
        "": None,
        "A is better": None,
        "A>B": None,
        "[A>B]": None,
        "[[A]]": None,
        "[[A>B]] or [[B>A]]": None,
        "[[A>B]] or [[C>A]]": None,
        "[[A > B]]": None,
        "[[a>b]]": None,
    }.items():
        assert prompt.grade(reply) == grade, reply


@pytest.mark.parametrize("name", known_prompts())
def test_what_ships_is_fair_and_lists_its_own_verdicts(name: str) -> None:
    prompt = load_judge_prompt(name)
    assert sorted(prompt.verdicts.values()) == [-3, -2, -1, 0, 1, 2, 3]
    assert all(f"[[{verdict}]]" in prompt.user for verdict in prompt.verdicts)
    for verdict, grade in prompt.verdicts.items():  # with the letters exchanged, the other side's
        assert prompt.verdicts["=".join(verdict.split("=")) if grade == 0 else _turned(verdict)] == -grade


def _turned(verdict: str) -> str:
    return verdict.translate(str.maketrans("AB", "BA"))


def test_slots_are_filled_once_and_braces_in_answers_stay_text() -> None:
    system, user = load_judge_prompt("helpfulness").messages("Why {first}?", "Say {second} {x}", "no {question}")
    assert system["role"] == "system"
    assert "Why {first}?" in user["content"]
    assert "[Answer A]\nSay {second} {x}\n[End of answer A]" in user["content"]
    assert "[Answer B]\nno {question}\n[End of answer B]" in user["content"]


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    prompt = load_judge_prompt(str(path))
    assert prompt.messages("q", "f", "s") == [{"role": "user", "content": "q | f | s"}]
    assert prompt.grade("[[two]]") == -1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("{second}", "{third}", r"user: \{second\} does not stand in it"),
        ("two: -1", "two: -2", "there is a verdict of -2 but none of 2"),
        ("two: -1", "two: -9", r"verdicts\.two"),
        ("{one: 1, two: -1}", "{one: 1", "line 4: not valid YAML"),
        ("verdicts", "verdict", "verdict: Extra inputs are not permitted"),
        (MINE, "- a list", "expected the keys system, user and verdicts"),
        (MINE, "1: 2", "keys must be text"),
    ],
)
def test_mistakes_in_it_are_named(tmp_path: Path, before: str, after: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace(before, after))
    with pytest.raises(ValueError, match=expected) as caught:
        load_judge_prompt(str(path))
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="no such judge prompt; give a YAML file, or one of helpfulness, safety"):
        load_judge_prompt("kindness")
