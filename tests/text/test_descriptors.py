"""Term lists, and the finder against one plain pattern per term."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from ayni.text.descriptors import Finder, axes, words_in

AXES = ["gender_and_sex", "nationality", "race_and_ethnicity", "religion", "sexual_orientation"]
# Words of terms, their beginnings and ends, and all that may stand between.
WORDS = [
    "African",
    "american",
    "two",
    "spirit",
    "TWO",
    "christian",
    "christians",
    "non",
    "binary",
    "x",
    "é",
    "İ",
    "trans",
    "lgbtq",
    "K",
]
BETWEEN = [" ", "-", "\n", "  ", " -", ", ", "_", "", "'s ", "+", "+ ", "9"]


def by_patterns(terms: list[str], text: str) -> set[str]:
    """The oracle: every term on its own, as it is described."""
    spelt = {term: r"(\s+|-)".join(re.escape(word) for word in re.split(r"[\s-]+", term)) for term in terms}
    return {term for term in terms if re.search(rf"(?<!\w){spelt[term]}(?!\w)", text.lower())}


def test_finds_what_one_pattern_per_term_finds() -> None:
    terms = [term for listed in axes().values() for term in listed] + ["lgbtq+", "x", "african american christian"]
    finder = Finder(terms)
    rng = random.Random(0)
    met: set[str] = set()
    for _ in range(400):
        words = rng.choices([*WORDS, *rng.sample(terms, 3)], k=rng.randint(1, 10))
        text = "".join(word + rng.choice(BETWEEN) for word in words)
        lowered = text.lower()
        found = finder.found(lowered, words_in(lowered))
        assert found == by_patterns(terms, text)
        met |= found
    assert {"african american", "two spirit", "lgbtq+", "christian"} <= met


def test_lists_have_the_papers_axes_and_none_of_the_words_it_drops() -> None:
    found = axes()
    assert sorted(found) == AXES
    everything = [term for terms in found.values() for term in terms]
    assert len(everything) == len(set(everything))
    assert not {"straight", "white", "black"} & set(everything)
    top = "female male feminine transgender masculine gay lesbian lgbt lgbtq queer american indian chinese korean mexican "
    top += "european african asian latin indigenous christian religious spiritual catholic jewish"
    assert set(top.split()) <= set(everything)  # Table 9b


def test_a_user_extends_an_axis_and_adds_one(tmp_path: Path) -> None:
    (tmp_path / "religion.txt").write_text("# mine\nMoon-Worshipper\n\nbuddhist\n", encoding="utf-8")
    (tmp_path / "trade.txt").write_text("baker\nmaster baker\n", encoding="utf-8")
    found = axes(tmp_path)
    assert sorted(found) == sorted([*AXES, "trade"])
    assert set(found["religion"]) == {*axes()["religion"], "moon worshipper"}
    assert found["trade"] == ("baker", "master baker")


def test_mistakes_in_a_users_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder with lists"):
        axes(tmp_path)
    path = tmp_path / "trade.txt"
    path.write_text("baker\nbuddhist\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'buddhist' stands in two axes, religion and trade"):
        axes(tmp_path)
    path.write_text("baker\n++\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"trade.txt: .* has no letter"):
        axes(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"trade.txt: not UTF-8"):
        axes(tmp_path)
