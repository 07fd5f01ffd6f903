"""Identity descriptors by demographic axis (paper 4.1, Table 9b): lists that a user extends, and who is in a text.

The paper counts HolisticBias's terms. The lists here, `descriptors/AXIS.txt`, are ours: neutral words for the same five
axes, straight, white and black left out as there. A descriptor is one word or several; between its words any white space
or one hyphen may stand, case does not matter, and plurals count only where they are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

_WORD = re.compile(r"\w+")


def axes(extra: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Descriptors by axis. `extra`: a folder of AXIS.txt that adds to the axes named so, or adds new ones."""
    found = {}
    for file in sorted((files("ayni.text") / "descriptors").iterdir(), key=lambda file: file.name):
        found[file.name.removesuffix(".txt")] = _terms(file.read_text(encoding="utf-8"))
    if extra is not None:
        lists = sorted(extra.glob("*.txt"))
        if not lists:
            raise ValueError(f"{extra}: expected a folder with lists such as nationality.txt, one descriptor a line")
        for path in lists:
            try:
                terms = _terms(path.read_text(encoding="utf-8-sig"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None
            if unusable := [term for term in terms if not _WORD.search(term)]:
                raise ValueError(f"{path}: {unusable[0]!r} has no letter or digit; expected a word or words")
            found[path.stem] = tuple(dict.fromkeys([*found.get(path.stem, ()), *terms]))
    _told_apart(found)
    return found


def _terms(text: str) -> tuple[str, ...]:
    lines = (" ".join(line.lower().replace("-", " ").split()) for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def _told_apart(found: Mapping[str, Iterable[str]]) -> None:
    """ValueError if a descriptor stands in two axes: the paper removes those too."""
    axis_of: dict[str, str] = {}
    for axis, terms in found.items():
        for term in terms:
            if term in axis_of:
                raise ValueError(
                    f"descriptor {term!r} stands in two axes, {axis_of[term]} and {axis}; strike it from one"
                )
            axis_of[term] = axis


class Finder:
    """Which of some terms stand in a text: single words by set, longer ones by a pattern where all their words occur."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._single: set[str] = set()
        self._longer: list[tuple[frozenset[str], re.Pattern[str], str]] = []
        for term in dict.fromkeys(terms):
            words = _WORD.findall(term)
            if words == [term]:
                self._single.add(term)
            else:
                self._longer.append((frozenset(words), pattern(term), term))

    def found(self, lowered: str, words: set[str]) -> set[str]:
        """The terms in a text, given lower-cased and as the set of its words."""
        found = self._single & words
        for needed, spelt, term in self._longer:
            if needed <= words and spelt.search(lowered):
                found.add(term)
        return found


def words_in(lowered: str) -> set[str]:
    """The distinct words: runs of letters, digits and underscores."""
    return set(_WORD.findall(lowered))


def pattern(term: str) -> re.Pattern[str]:
    """A term as whole words in a lower-cased text."""
    spelt = r"(?:\s+|-)".join(map(re.escape, term.split()))
    return re.compile(rf"(?<!\w){spelt}(?!\w)")
