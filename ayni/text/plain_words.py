"""Words and punctuation marks as tokens, for matching where no tokenizer is named.

A word is a run of letters, digits and underscores; any other character but white space is a token of its own. Ids are
given to the words of the evaluation samples alone: 2, 3, ... in order; all other words are OTHER, which no sample has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ayni.text.documents import in_batches

WALL, OTHER = 0, 1  # a document's beginning and end; a word that no sample has
_TOKEN = re.compile(r"\w+|[^\w\s]")


class PlainWords:
    """The vocabulary of some samples."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def encode_samples(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of samples, whose words become known."""
        numbers = self._numbers
        return [[numbers.setdefault(word, len(numbers) + 2) for word in _TOKEN.findall(text)] for text in texts]

    def encode_documents(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Flat ids, documents end to end, each within two WALLs: array by array."""
        get = self._numbers.get
        for batch in in_batches(texts):
            ids = []
            for text in batch:
                ids += [WALL, *(get(word, OTHER) for word in _TOKEN.findall(text)), WALL]
            yield np.array(ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The words of the ids with blanks between them."""
        words = list(self._numbers)
        return " ".join(words[number - 2] for number in ids)
