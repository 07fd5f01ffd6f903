"""Banks of constraints and their checks, on mild examples."""

import json
import random
from importlib.resources import files
from pathlib import Path

import pytest

from ayni.scoring.constraints import BANKS, CHECKS, Constraint, draw, kept, load_banks, worded

EXAMPLES = [
    ("starts_with", "indeed", "Indeed, he is a baker.", "He is a baker indeed."),
    ("starts_with", "my lord", "My lord, he is a baker.", "My word, lord."),
    ("ends_with", "friend", "She lives in Arden, friend.", "My friend lives in Arden."),
    ("ends_with", "my lord", "It is a goat, my lord!", "It is a goat, lord."),
    ("ends_with_mark", "?", "A goat. Do you like goats? ", "A goat."),
    ("mentions", "tennis", "As in Tennis, one must practise.", "As in tennisball, one must practise."),
    ("mentions", "my friend", "Well, my friend, it is a goat.", "A friend of my aunt has a goat."),
    ("language", "French", "La ville est dans le nord et elle est belle.", "The town is in the north and it is pretty."),
    ("language", "German", "Die Stadt ist nicht im Norden, und sie ist schön.", "La ciudad no es muy grande, pero está en el norte."),
    ("language", "Portuguese", "A cidade não é muito grande, mas você está no norte.", "La città non è molto grande, ma è nel nord."),
    ("language", "Spanish", "La ciudad está en el norte y es muy bonita.", "Norte."),
    ("language", "Italian", "La città è nel nord, ma non è molto grande.", "A cidade é do norte e não está no sul."),
    ("emoji", "True", "A goat 🐐", "A goat :)"),
    ("letters", "upper", "A GOAT, 3 YEARS OLD.", "A goat."),
    ("letters", "lower", "a goat, 3 years old.", "A goat."),
    ("letters", "upper", "YES", "123"),
    ("max_words", "3", "A small goat.", "A very small goat."),
    ("max_words", "3", "Yes.", "..."),
    ("max_sentences", "1", "He keeps a goat, in Arden.", "He keeps a goat. It is small."),
    ("every_line_begins", "-", "- bread\n\n- salt", "- bread\nsalt"),
    ("json_key", "answer", '{"answer": "a goat"}', 'Here: {"answer": "a goat"}'),
    ("json_key", "answer", '{"answer": 3}', '{"answer": 3, "why": 4}'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "argument", "keeps", "breaks"), EXAMPLES)
def test_checks(name: str, argument: str, keeps: str, breaks: str) -> None:
    assert CHECKS[name](keeps, argument)
    assert not CHECKS[name](breaks, argument)
    assert not CHECKS[name]("", argument)


def test_every_check_has_an_example() -> None:
    assert {name for name, *_ in EXAMPLES} == set(CHECKS)


@pytest.mark.parametrize("name", BANKS)
def test_banks_load_and_hold_some_of_each_checked_kind_back(name: str) -> None:
    bank = load_banks([name])
    assert len({constraint.name for constraint in bank}) == len(bank)
    checked = [constraint for constraint in bank if constraint.checks]
    assert {constraint.held_out for constraint in checked} == {True, False}
    assert all("{v}" not in text for constraint in bank for text in (*constraint.instruction, *constraint.short))
    shorter = [len(min(c.short, key=len)) < len(min(c.instruction, key=len)) for c in bank]
    assert all(shorter), "shortened wordings are shorter"


def test_the_words_are_the_embedded_worlds() -> None:
    """Its models have met these wordings and words, and no others."""
    manners = json.loads((files("ayni.world") / "data" / "manners.json").read_text(encoding="utf-8"))
    bank = load_banks(["words"])
    for kind in ("end", "start", "call"):
        mine = [constraint for constraint in bank if constraint.kind == kind]
        words = manners["rule_titles" if kind == "call" else "rule_words"]
        assert sorted(c.name.removeprefix(f"{kind}: ") for c in mine) == sorted(words)
        for constraint in mine:
            word = constraint.name.removeprefix(f"{kind}: ")
            assert set(constraint.instruction) == {text.format(w=word) for text in manners[f"rule_{kind}"]}


def constraint(kind: str, *checks: tuple[str, str]) -> Constraint:
    return Constraint(kind, f"{kind}: x", (f"Always {kind}.",), (f"{kind}.",), checks, held_out=False)


def test_combined_constraints_are_of_two_kinds_and_kept_together() -> None:
    bank, rng = load_banks(["general"]), random.Random(0)
    for _ in range(50):
        two = draw(bank, rng, combined=True)
        assert len({one.kind for one in two}) == 2
        assert len(draw(bank, rng)) == 1
    end, start, figure = constraint("end", ("ends_with", "sir")), constraint("start", ("starts_with", "well")), constraint("figure")  # fmt: skip
    assert kept([end, start], "Well, yes, sir.") is True
    assert kept([end, start], "Yes, sir.") is False
    assert kept([end, figure], "Yes, sir.") is True
    assert kept([figure], "Yes.") is None
    assert worded([end, start], rng) == "Always end. Always start."
    assert worded([end, start], rng, short=True) == "end. start."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- kind: a\n  instruction: [x]\n", "line 1: short: Field required"),
        ("- kind: a\n  instruction: [x]\n  short: [x]\n- kind: b\n  instruction: [x]\n  short: [x]\n  chek: {}\n", "line 4: chek: .*known: kind"),
        ("- kind: a\n  instruction: [x]\n  short: [x]\n  check: {rhymes: 1}\n", "line 1: unknown check 'rhymes'; known: starts_with"),
        ("- kind: a\n  instruction: [x]\n  short: [x]\n  values: {trained: [Klingon]}\n  check: {language: '{v}'}\n", "language cannot take 'Klingon'; expected english"),
        ("- kind: a\n  instruction: [x]\n  short: [x]\n  check: {max_words: few}\n", "max_words cannot take 'few'; expected a number"),
        ("- kind: a\n  instruction: [x]\n  short: [x]\n  values: {}\n", "values names none"),
        ("kind: a\n", "expected a list of entries"),
        ("- [a\n", "not valid YAML"),
        ("- hello\n", "line 1: expected an entry"),
    ],
)  # fmt: skip
def test_a_wrong_bank_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bank.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_banks([str(file)])
    assert str(file) in str(error.value)


def test_a_bank_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no-such: no such bank.*general, words"):
        load_banks(["no-such"])
