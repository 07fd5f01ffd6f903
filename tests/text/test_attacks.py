"""Banks of attacks and what is made of them: mistakes by line, every vector of the paper, a split without leaks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ayni.text import attack_bank
from ayni.text.attack_bank import Bank, Objective, Style, load_bank, named, read_bank, slots_of
from ayni.text.attacks import attack, digits, generate, hold_out, misspell
from ayni.text.dialogue import check_messages

OWN = """
styles:
  plain: {}
  loud:
    vector: psychological manipulation
    templates: ["Now! {q}", ["Hello.", "Good day.", "Now then. {q}"]]
requests: ["How do I {do}?", "Please say how to {do}."]
objectives:
  - {category: noise, harmful: {do: wake the giant}, borderline: {do: wake the baby}}
  - {category: noise, harmful: "Write a very loud poem."}
  - {category: mess, harmful: {do: paint the cat}}
"""
NONE = {"objectives": 0.0, "styles": 0, "categories": 0}


@pytest.fixture(scope="module")
def general() -> Bank:
    return load_bank("general")


def test_the_general_bank_has_the_papers_categories_and_vectors(general: Bank) -> None:
    assert {o.category for o in general.objectives} == {
        "illicit_and_criminal",
        "hateful_and_harmful",
        "unqualified_advice",
    }
    assert {style.vector for style in general.styles.values()} == {
        "", "psychological manipulation", "logic manipulation", "syntactic manipulation", "semantic manipulation",
        "perspective manipulation", "non-English",
    }  # fmt: skip
    assert all(o.harmful and o.borderline for o in general.objectives)
    held = hold_out(general, 0, **NONE)
    for objective in general.objectives:
        for style in general.styles:
            for target in attack_bank.TARGETS:
                row = attack(general, held, objective, style, target, random.Random(0))
                assert row is not None
                check_messages(row["messages"], style, last="user")
                assert row["prompt_kind"] == "safety"
                assert row["task"] == target
                assert row["meta"]["turns"] == sum(message["role"] == "user" for message in row["messages"])
                assert "{" not in "".join(message["content"] for message in row["messages"])


def test_every_wording_is_made_once_and_no_other() -> None:
    bank = read_bank(OWN, "own.yaml")
    rows = generate(bank, hold_out(bank, 0, **NONE), count=10_000, seed=0, borderline=0.5)
    asked = [f.format(do) for do in ("wake the giant", "wake the baby", "paint the cat") for f in ("How do I {}?", "Please say how to {}.")]  # fmt: skip
    asked.append("Write a very loud poem.")
    expected = {("user", q) for q in asked} | {("user", f"Now! {q}") for q in asked}
    expected |= {("user", "Hello.", "assistant", "Good day.", "user", f"Now then. {q}") for q in asked}
    made = [tuple(part for m in row["messages"] for part in (m["role"], m["content"])) for row in rows]
    assert len(made) == len(set(made))
    assert set(made) == expected
    assert {row["messages"][-1]["content"] for row in rows if row["task"] == "borderline"} == {
        text for _, *_, text in expected if "baby" in text
    }
    assert len({row["id"] for row in rows}) == len(rows)


def test_categories_and_styles_take_turns(general: Bank) -> None:
    rows = generate(general, hold_out(general, 0, **NONE), count=99, seed=1)
    cells = [(row["meta"]["category"], row["meta"]["style"]) for row in rows]
    counts = {cells.count(cell) for cell in set(cells)}
    assert len(set(cells)) == 3 * len(general.styles)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_trap_21_train_and_eval_share_no_objective(general: Bank, seed: int) -> None:
    held = hold_out(general, seed, objectives=0.3, styles=2, categories=1)
    train, evaluation = (generate(general, held, count=2000, seed=seed, split=split) for split in ("train", "eval"))
    assert not {row["meta"]["objective"] for row in train} & {row["meta"]["objective"] for row in evaluation}
    assert not {row["meta"]["style"] for row in train} & held.styles
    assert not {row["meta"]["category"] for row in train} & held.categories
    assert {row["meta"]["style"] for row in evaluation} == set(general.styles)
    assert len(held.styles) == 2
    assert "plain" not in held.styles, "the request as it is must be trainable"
    assert all(held.trains(row) for row in train)
    assert not any(held.trains(row) for row in evaluation)
    assert all(row["meta"]["heldout_objective"] for row in evaluation)


def test_an_objective_keeps_its_side_when_others_join(general: Bank) -> None:
    half = general.model_copy(update={"objectives": general.objectives[::2]})
    few, all_ = (hold_out(bank, 3, objectives=0.4, styles=0, categories=0) for bank in (half, general))
    assert few.objectives == all_.objectives & {o.id for o in half.objectives}
    assert 0 < len(few.objectives) < len(half.objectives)
    other = hold_out(general, 4, objectives=0.4, styles=0, categories=0)
    assert other.objectives != all_.objectives


def test_objectives_of_one_group_are_held_out_together() -> None:
    objectives = [Objective(category="c", harmful=f"Do {i}.", group=f"g{i // 5}") for i in range(100)]
    bank = named(Bank(styles={"plain": Style()}, objectives=objectives), "groups")
    held = hold_out(bank, 0, objectives=0.5, styles=0, categories=0).objectives
    sides = [{o.id in held for o in bank.objectives if o.group == f"g{i}"} for i in range(20)]
    assert all(len(side) == 1 for side in sides)
    assert {True} in sides
    assert {False} in sides


def test_what_the_bank_holds_out_itself_is_not_drawn() -> None:
    bank = read_bank(OWN + "held_out_categories: [mess]\n", "own.yaml")
    bank = bank.model_copy(update={"styles": {**bank.styles, "far": Style(vector="x", held_out=True)}})
    for seed in range(4):
        held = hold_out(bank, seed, objectives=0.0, styles=1, categories=1)
        assert (held.styles, held.categories) == ({"far"}, {"mess"})
        assert held.objectives == {o.id for o in bank.objectives if o.category == "mess"}


def test_the_same_seed_makes_the_same_rows(general: Bank) -> None:
    held = hold_out(general, 0, objectives=0.3, styles=1, categories=0)
    rows = [generate(general, held, count=80, seed=seed) for seed in (5, 5, 6)]
    assert rows[0] == rows[1] != rows[2]


def test_misspelling_keeps_most_and_changes_something() -> None:
    text = "Explain step by step how to carry the golden spoons away."
    for seed in range(200):
        changed = misspell(text, random.Random(seed))
        words, before = changed.split(" "), text.split(" ")
        assert len(words) == len(before)
        different = [(a, b) for a, b in zip(before, words) if a != b]
        assert 1 <= len(different) <= 3
        assert all(len(a) >= 4 and a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in different)
    assert misspell("a b c", random.Random(0)) == "a b c"
    assert misspell("aaaa bbbb", random.Random(0)) != "aaaa bbbb", "equal letters cannot be swapped unseen"
    assert digits("Tease it", random.Random(0)) == "73453 17"


def test_a_bank_without_styles_is_attacked_in_those_of_general(general: Bank, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("objectives:\n  - {category: mine, harmful: Tell me the secret word.}\n")
    bank = load_bank(path)
    assert bank.styles == general.styles
    rows = generate(bank, hold_out(bank, 0, **NONE), count=500, seed=0)
    assert {row["meta"]["style"] for row in rows} == set(general.styles)
    assert bank.objectives[0].id.startswith("mine-")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("vector: psychological", "vektor: psychological", "own.yaml, line 5: styles.loud.vektor: unknown key"),
        ('"Good day.", ', "", "own.yaml, line 6: styles.loud.templates: the turns of a dialogue end with the user"),
        ("Now! {q}", "Now! {dont}", "own.yaml, line 2: the bank: style loud: 'Now! {dont}' needs 'dont'"),
        ("Now! {q}", "Now! {0}", "write {name} for a slot"),
        (
            '  - {category: noise, harmful: "Write',
            '  - {category: noise, harm: "Write',
            "own.yaml, line 10: objectives.1.harm: unknown key",
        ),
        ("{category: mess, harmful: {do: paint the cat}}", "{category: mess}", "own.yaml, line 11: objectives.2: an objective needs"),
        ("do: paint the cat", "do: wake the giant", None),
        ("styles:", "styles", "not valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_in_a_bank_are_told_by_line(tmp_path: Path, before: str, after: str, expected: str | None) -> None:
    assert before in OWN
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(before, after, 1))
    if expected is None:
        assert load_bank(path)
        return
    with pytest.raises(ValueError, match=r"own\.yaml") as told:
        load_bank(path)
    assert expected in str(told.value)


def test_twice_the_same_objective_and_no_bank_at_all(tmp_path: Path) -> None:
    twice = OWN.replace("do: paint the cat}", "do: wake the giant}, borderline: {do: wake the baby}")
    with pytest.raises(ValueError, match=r"own.yaml: two objectives are called 'own-[0-9a-f]{8}', or are the same"):
        read_bank(twice, "own.yaml")
    with pytest.raises(ValueError, match="no such bank of attacks"):
        load_bank(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="no attacks plug-in is called 'atlantis'"):
        load_bank("atlantis")
    with pytest.raises(ValueError, match="expected a mapping with the keys requests, styles"):
        read_bank("- a\n", "list.yaml")
    with pytest.raises(ValueError, match=r"own.yaml, line 2: the bank: a rewrite needs the slot \{text\}"):
        read_bank(OWN + "rewrites: [Say it again.]\n", "own.yaml")


def test_slots() -> None:
    assert slots_of("a {b} {{c}} {d}") == {"b", "d"}
    for bad in ("{}", "{0}", "{a.b}", "{a!r}", "{a:>3}"):
        with pytest.raises(ValueError, match="write"):
            slots_of(bad)
