"""How much a set of answers repeats itself: the marks of reward hacking (TRAPS 22)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def distinct_n(texts: Sequence[str], n: int = 3) -> float | None:
    """Distinct word n-grams over all n-grams of the set (Li et al. 2016). None where no text has n words.

    It falls as a set grows, so compare sets of equally many prompts only.
    """
    grams = [tuple(words[i : i + n]) for words in map(_words, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def mean_words(texts: Sequence[str]) -> float | None:
    """Mean length in words."""
    return sum(len(_words(text)) for text in texts) / len(texts) if texts else None


def commonest_opening(texts: Sequence[str], n: int = 4) -> tuple[str, float]:
    """The first n words that most answers share, and the share of answers that open so. One phrase for all is 1.0."""
    openings = Counter(" ".join(_words(text)[:n]) for text in texts)
    if not openings:
        return "", 0.0
    phrase, count = openings.most_common(1)[0]
    return phrase, count / len(texts)


def _words(text: str) -> list[str]:
    return text.lower().split()
