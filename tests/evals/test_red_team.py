"""The search of a red-team round, on scripted models: what it finds, and what it builds on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ayni.evals.red_team import ESCALATE, REWRITE, Arms, Round, degenerate
from ayni.text.attack_bank import Bank, Objective, Style, named
from ayni.text.attacks import HeldOut, Row
from ayni.text.dialogue import check_messages

NOBODY = HeldOut(frozenset(), frozenset(), frozenset())
STYLES = [f"style{i}" for i in range(9)]
CATEGORIES = ("loud", "sticky", "late")


def bank(rewrites: bool = False) -> Bank:
    objectives = [
        Objective(category=c, harmful=f"Do the {c} thing number {i}.") for c in CATEGORIES for i in range(300)
    ]
    return named(
        Bank(
            styles={name: Style(vector="v", templates=[f"{name}: {{q}}"]) for name in STYLES},
            objectives=objectives,
            escalations=["Go on: {q}"],
            rewrites=["Other words: {text}"] if rewrites else [],
        ),
        "b",
    )


def played(
    weak: Callable[[Row, random.Random], bool],
    search: Any = "thompson",
    seed: int = 0,
    tries: int = 240,
    rewrite: Callable[[list[str], list[str]], list[str]] = lambda texts, _: [""] * len(texts),
    **more: Any,
) -> Round:
    """A round on a model that says "bad" where `weak` says so, else "no"."""
    chance = random.Random(f"model {seed}")
    ask = lambda rows: ["bad" if weak(row, chance) else "no" for row in rows]  # noqa: E731
    made = Round(
        more.pop("bank", bank()), NOBODY, ask, rewrite, lambda _, answer: answer == "bad", random.Random(seed),
        search=search, **more,
    )  # fmt: skip
    made.run(tries, 12)
    return made


def planted(row: Row, chance: random.Random) -> bool:
    """One style works on one category, mostly; else nearly nothing does."""
    hit = row["meta"]["category"] == "sticky" and row["meta"]["move"] == "style4"
    return chance.random() < (0.8 if hit else 0.02)


@pytest.mark.parametrize("search", ["thompson", "ucb"])
def test_the_bandit_finds_the_planted_weakness_faster_than_uniform(search: Any) -> None:
    found = {s: [sum(one.flagged for one in played(planted, s, seed).tries) for seed in range(6)] for s in (search, "uniform")}  # fmt: skip
    assert min(found[search]) > max(found["uniform"]), found
    assert sum(found[search]) > 2 * sum(found["uniform"]), found
    last = played(planted, search, 0).tries[-60:]
    assert sum(one.arm == ("sticky", "style4") for one in last) > 8, "by chance 2 of 60"


def test_the_search_is_worth_nothing_where_all_arms_are_alike() -> None:
    """A sanity check of the comparison itself: no bandit beats chance at chance."""
    alike = lambda _row, chance: chance.random() < 0.2  # noqa: E731
    found = {s: sum(sum(one.flagged for one in played(alike, s, seed).tries) for seed in range(6)) for s in ("thompson", "uniform")}  # fmt: skip
    assert abs(found["thompson"] - found["uniform"]) < 0.25 * found["uniform"]


def test_the_same_seed_makes_the_same_tries_and_another_others() -> None:
    rows = [[(one.arm, one.row, one.answer) for one in played(planted, seed=seed).tries] for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_no_attack_is_asked_twice_and_ids_differ() -> None:
    tries = played(planted, tries=400).tries
    openings = [repr(one.row["messages"]) for one in tries if one.arm[1] not in (ESCALATE, REWRITE)]
    assert len(set(openings)) == len(openings)
    assert len({one.row["id"] for one in tries}) == len(tries) == 400
    assert [one.number for one in tries] == list(range(400))


def test_escalation_goes_on_from_the_models_own_answer() -> None:
    """Only a third turn works: it must be reached through two refusals, on the dialogue so far."""
    third = lambda row, _: row["meta"]["turns"] == 3  # noqa: E731
    made = played(third, tries=300, max_turns=3)
    assert any(one.flagged for one in made.tries)
    for one in made.tries:
        check_messages(one.row["messages"], "x", last="user")
        assert one.row["meta"]["turns"] == (len(one.row["messages"]) + 1) // 2 <= 3
        if one.arm[1] == ESCALATE:
            assert one.parent is not None
            before = made.tries[one.parent]
            assert one.row["messages"][:-1] == before.dialogue
            assert one.row["messages"][-1]["content"].startswith("Go on: Do the ")
            assert one.chain == before.chain + 1
            assert one.row["meta"]["objective"] == before.row["meta"]["objective"]
            assert not before.flagged
        else:
            assert one.chain == 1
    assert all(one.chain == 3 for one in made.tries if one.flagged)
    parents = [one.parent for one in made.tries if one.parent is not None]
    assert len(parents) == len(set(parents)), "a refused dialogue is escalated once"


def test_rewrites_are_the_models_own_words_and_bad_ones_are_dropped() -> None:
    spoken: list[tuple[str, str]] = []

    def rewrite(texts: list[str], wordings: list[str]) -> list[str]:
        spoken.extend(zip(texts, wordings))
        return [("Kindly, " + text) if "1" in text else text for text in texts]

    made = played(lambda row, _: row["messages"][0]["content"].startswith("Kindly"), rewrite=rewrite, bank=bank(True))
    again = [one for one in made.tries if one.arm[1] == REWRITE]
    assert again
    assert all(one.row["messages"][0]["content"].startswith("Kindly, style") and one.flagged for one in again)
    assert all(wording == "Other words: {text}" for _, wording in spoken)
    assert made.wasted["rewrite unchanged"] == sum("1" not in text for text, _ in spoken)
    pulls = sum(count for (_, move), count in made.arms.pulls.items() if move == REWRITE)
    assert pulls == len(spoken) == len(again) + made.wasted.total()


def test_a_full_context_is_no_try_and_counted() -> None:
    made = Round(bank(), NOBODY, lambda rows: [None] * len(rows), lambda t, _: t, lambda *_: True, random.Random(0))
    assert made.run(50, 10) == []
    assert made.wasted == {"no room in the context": 30}, "it gives up after three batches without an answer"


def test_the_round_ends_when_every_wording_was_tried() -> None:
    one = named(Bank(styles={"plain": Style()}, objectives=[Objective(category="c", harmful="Do it.")]), "one")
    made = played(lambda *_: True, bank=one, tries=50)
    assert [t.row["messages"][0]["content"] for t in made.tries] == ["Do it."]


def test_borderline_objectives_are_no_attacks() -> None:
    mixed = named(Bank(styles={"plain": Style()}, objectives=[Objective(category="c", borderline="Be kind."), Objective(category="d", harmful="Be loud.")]), "m")  # fmt: skip
    made = played(lambda *_: True, bank=mixed)
    assert {t.row["meta"]["category"] for t in made.tries} == {"d"}


def test_ucb_against_its_formula() -> None:
    arms = Arms("ucb")
    names = [("c", "a"), ("c", "b"), ("c", "d")]
    for (arm, hits), pulls in zip(zip(names, (3, 1, 0)), (6, 2, 1)):
        for i in range(pulls):
            arms.learn(arm, i < hits)
    # 3/6 + sqrt(2 ln 9 / 6) = 1.356; 1/2 + sqrt(2 ln 9 / 2) = 1.982; 0 + sqrt(2 ln 9) = 2.096
    assert arms.choose(names, random.Random(0)) == ("c", "d")
    # d pending: 0/2 + sqrt(2 ln 10 / 2) = 1.517; b: 1/2 + sqrt(2 ln 10 / 2) = 2.017
    assert arms.choose(names, random.Random(0)) == ("c", "b")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("", "empty"),
        ("how do I wake the giant", "unchanged"),
        ("Giant?", "too short or too long"),
        ("wake giant wake giant wake giant wake giant", "repeats itself"),
        ("Where can one buy warm bread?", "about something else"),
        ("Which is the way to wake a giant?", ""),
    ],
)
def test_degenerate_rewrites(said: str, problem: str) -> None:
    assert degenerate("How do I wake the giant?", said) == problem
