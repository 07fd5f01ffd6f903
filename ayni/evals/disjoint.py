"""Keeping near-duplicates out of different splits, and the proof that they are (TRAPS 21)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

LIMIT = 0.6  # word-set overlap from which two prompts count as the same one reworded
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an the of to in on at for and or is are was were be been do does did i me my you your it its this that with by"
        " from as have has had can could would should will what which who how choose one answer yes no question",
    )
)


def content_words(text: str) -> frozenset[str]:
    """The prompt's words in lower case without the commonest ones; all of them where nothing else is left."""
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("’", ""))
    return frozenset(word for word in words if word not in _COMMON) or frozenset(words)


def overlap(a: Collection[str], b: Collection[str]) -> float:
    """Jaccard: shared words over all words."""
    shared = len(set(a) & set(b))
    return shared / (len(a) + len(b) - shared) if a or b else 1.0


class Distinct:
    """A growing set of prompts no two of which are near-duplicates."""

    def __init__(self) -> None:
        self._by_word: dict[str, list[frozenset[str]]] = {}

    def admit(self, text: str) -> bool:
        """True, and remembered, if `text` is new."""
        words = content_words(text)
        met = {other for word in words for other in self._by_word.get(word, ())}
        if any(overlap(words, other) >= LIMIT for other in met):
            return False
        for word in words:
            self._by_word.setdefault(word, []).append(words)
        return True


def proof(splits: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """For every two splits: how many prompts have equal words, and the largest overlap between any two.

    Raises ValueError if some pair reaches LIMIT: such data must not be written.
    """
    words = {name: [content_words(text) for text in texts] for name, texts in splits.items()}
    pairs = {}
    for a, b in combinations(words, 2):
        overlaps = [overlap(x, y) for x in words[a] for y in words[b]]
        largest = max(overlaps, default=0.0)
        pairs[f"{a}/{b}"] = {"equal": sum(value == 1.0 for value in overlaps), "largest_overlap": round(largest, 4)}
        if largest >= LIMIT:
            raise ValueError(f"splits {a} and {b} share a prompt or near-duplicate (word overlap {largest:.2f})")
    return {"limit": LIMIT, "pairs": pairs}
