"""Right or wrong against gold answers, for the final judge alone.

Written apart from `ayni.scoring`, whose overlap scorers label training data: a judge must not share a scorer with an
annotator (TRAPS 24), or a policy that games the one games the other unseen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = {"a", "an", "the"}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def words(text: str) -> list[str]:
    """Lower-case words and numbers without accents, punctuation and articles (SQuAD's normalisation)."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return [word for word in re.findall(r"[a-z0-9]+", plain.replace("'", "")) if word not in _ARTICLES]


def position(answer: Sequence[str], gold: Sequence[str]) -> int | None:
    """Where the words of `gold` first stand in `answer`, one after the other."""
    for start in range(len(answer) - len(gold) + 1):
        if gold and list(answer[start : start + len(gold)]) == list(gold):
            return start
    return None


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """SQuAD's F1, 2PR/(P+R) over the bag of words, the best over the aliases."""
    return max((_f1(words(answer), words(gold)) for gold in golds), default=0.0)


def _f1(a: list[str], b: list[str]) -> float:
    rest, common = list(b), 0
    for word in a:
        if word in rest:
            rest.remove(word)
            common += 1
    return 2 * common / (len(a) + len(b)) if common else 0.0


def is_right(answer: str, kind: str, golds: Sequence[str], options: Sequence[str] = ()) -> bool:
    """Whether the answer gives the gold one, by the kind of question.

    number: the last number named equals gold. choice, yes_no: of the options, the one named first is gold (so naming
    all of them wins nothing). short: an alias stands in the answer.
    """
    if kind == "number":
        named = _NUMBER.findall(answer)
        return bool(named) and any(_value(named[-1]) == _value(gold) for gold in golds if _NUMBER.fullmatch(gold))
    said = words(answer)
    if kind in ("choice", "yes_no"):
        first = _first_option(said, [words(option) for option in options])
        return first is not None and first in [words(gold) for gold in golds]
    return any(position(said, words(gold)) is not None for gold in golds)


def _first_option(said: list[str], options: list[list[str]]) -> list[str] | None:
    """The option named first; of two that start at the same word, the longer."""
    found = [(place, -len(option), option) for option in options if (place := position(said, option)) is not None]
    return min(found)[2] if found else None


def _value(number: str) -> float:
    return float(number.replace(",", ""))
