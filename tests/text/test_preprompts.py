"""Banks of safety preprompts: mistakes by line, slots, joining, and where a preprompt stands in a dialogue."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ayni.text.dialogue import check_messages
from ayni.text.preprompts import BANKS, Preprompts, load_preprompts, with_preprompt

OWN = """
adjectives: [calm, brave]
nouns: [clerk]
generic: ["Be a {a} and {b} {noun}."]
categories:
  noise: ["Be {a}. Say what is too loud."]
"""


@pytest.mark.parametrize("name", BANKS)
def test_every_wording_of_our_banks_can_be_filled(name: str) -> None:
    bank, rng = load_preprompts([name]), random.Random(0)
    for category in (None, *bank.categories):
        said = {bank.worded(category, rng) for _ in range(200)}
        assert len(said) >= 4
        assert not any(mark in text for text in said for mark in "{}")
    assert {"responsible", "respectful", "wise", "safe"} <= set(load_preprompts(["general"]).adjectives)


def test_the_general_bank_has_a_template_for_each_of_the_papers_risk_categories() -> None:
    assert set(load_preprompts(["general"]).categories) == {"illicit_and_criminal", "hateful_and_harmful", "unqualified_advice"}  # fmt: skip


def test_wordings_are_filled_with_two_different_adjectives(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    bank, rng = load_preprompts([str(tmp_path / "own.yaml")]), random.Random(1)
    assert {bank.worded(None, rng) for _ in range(50)} == {"Be a calm and brave clerk.", "Be a brave and calm clerk."}
    assert {bank.worded("noise", rng) for _ in range(50)} == {f"Be {a}. Say what is too loud." for a in ("calm", "brave")}  # fmt: skip
    assert (bank.wordings("mess"), bank.wordings("")) == ([], [])


def test_banks_are_joined_and_the_later_category_counts(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        'generic: ["Be {a}."]\ncategories: {unqualified_advice: ["You are a {noun}. Send them to a doctor."], noise: [Hush.]}\n'
    )
    general, joined = load_preprompts(["general"]), load_preprompts(["general", str(own)])
    assert joined.generic == [*general.generic, "Be {a}."]
    assert joined.categories["unqualified_advice"] == ["You are a {noun}. Send them to a doctor."]
    assert joined.categories["noise"] == ["Hush."]
    assert joined.categories["hateful_and_harmful"] == general.categories["hateful_and_harmful"]
    with pytest.raises(ValueError, match=r"own.yaml: 'Be \{a\}.' needs two adjectives for \{a\}"):
        load_preprompts([str(own)])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("nouns: [clerk]", "noun: [clerk]", "own.yaml, line 3: noun: unknown key; .*general.yaml"),
        ("[calm, brave]", "[calm, 7]", r"own.yaml, line 2: adjectives.1: Input should be a valid string"),
        ("[calm, brave]", "calm", r"own.yaml, line 2: adjectives: Input should be a valid list"),
        ("{noun}.", "{who}.", r"own.yaml, line 4: generic: .* has the slot \{who\}; known: \{a\}, \{b\}, \{noun\}"),
        ("{noun}.", "{noun.", "own.yaml, line 4: generic: expected '}'"),
        ('["Be {a}. Say what is too loud."]', "[]", "own.yaml, line 6: categories.noise: List should have at least 1 item"),
        ("nouns: [clerk]", "nouns: []", r"own.yaml: .* needs a noun for \{noun\}"),
        ("[calm, brave]", "[calm]", r"own.yaml: .* needs two adjectives for \{b\}"),
        ("adjectives: [", "adjectives: [[", "own.yaml: not valid YAML"),
        (OWN, "- calm\n", "own.yaml: expected a mapping with the keys adjectives, nouns, generic, categories"),
        (OWN, "nouns: []\n", "own.yaml, line 1: the bank: the bank is empty"),
        (OWN, "7: [calm]\n", "own.yaml: expected the keys adjectives"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_file_and_line(tmp_path: Path, before: str, after: str, expected: str) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace(before, after))
    with pytest.raises(ValueError, match=expected):
        load_preprompts([str(tmp_path / "own.yaml")])


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"none.yaml: no such bank of preprompts; give a YAML file, or one of general, words"
    ):
        load_preprompts([str(tmp_path / "none.yaml")])
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"own.yaml: not UTF-8 text"):
        load_preprompts([str(tmp_path / "own.yaml")])


def test_a_preprompt_is_the_system_message_or_stands_in_front_of_it() -> None:
    asked = [{"role": "user", "content": "Why?"}]
    assert with_preprompt(asked, "Be kind.") == [{"role": "system", "content": "Be kind."}, *asked]
    ruled = [{"role": "system", "content": "Speak French."}, *asked]
    both = with_preprompt(ruled, "Be kind.")
    assert both == [{"role": "system", "content": "Be kind.\n\nSpeak French."}, *asked]
    check_messages(both, "both", last="user")
    assert ruled[0]["content"] == "Speak French.", "what it is given stays as it was"


def test_an_empty_bank_has_no_wording() -> None:
    assert Preprompts(adjectives=["kind"]).wordings(None) == []
