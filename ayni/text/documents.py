"""Many documents to ids: a word that was met before is looked up, new ones are encoded together, on all cores.

19 MB of English have 3 million words, 230,000 of them distinct; nearly all of the library's own work is in the others.
No loop in Python goes over words that are known: Arrow tells them apart, and numpy lays their ids end to end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ayni.text.tokenizer import Tokenizer, whole_characters
from ayni.text.words import words_of

BATCH = 2_000_000  # characters that are encoded together
REMEMBERED = 8_000_000  # characters of words; with more, all are forgotten, so that memory stays below some 300 MB
BOS, EOS = 0, 1  # numbers of the two words that every lexicon begins with
EncodeAll = Callable[[Sequence[str]], list[list[int]]]


def token_type(vocab_size: int) -> np.dtype:
    """The narrower of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def encode_documents(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Flat ids of type `token_type`, documents end to end in their order, each within BOS and EOS: array by array.

    The ids are `Tokenizer.encode`'s, document by document.
    """
    lexicon = _Lexicon(tokenizer)
    for batch in in_batches(texts):
        if lexicon.characters > REMEMBERED:
            lexicon = _Lexicon(tokenizer)
        yield lexicon.encode(batch) if tokenizer.words_apart else _encode_uncut(tokenizer, batch)


def _encode_uncut(tokenizer: Tokenizer, batch: list[str]) -> np.ndarray:
    ids = array(token_type(tokenizer.vocab_size).char)
    for document in tokenizer.encode_all(batch):
        ids.extend((tokenizer.bos_id, *document, tokenizer.eos_id))
    return np.array(ids)


class _Lexicon:
    """Ids of the words met so far: those of word number n are `ids[starts[n] : starts[n + 1]]`.

    Letters: N words of a batch, W distinct ones, D documents.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.first: dict[str, int] = {}  # numbers of words that begin a document
        self.following: dict[str, int] = {}  # and of the others, which stand behind a space
        self.ids, self.starts = array(token_type(tokenizer.vocab_size).char), array("q", [0])
        self.characters = 0
        self._enter([tokenizer.bos_id])
        self._enter([tokenizer.eos_id])

    def encode(self, batch: list[str]) -> np.ndarray:
        words = words_of([whole_characters(text) for text in batch])
        begin_D, end_D = words.offsets[:-1], words.offsets[1:]
        numbers_W = self._numbers(self.following, words.distinct, self._encode_following)
        numbers_N = numbers_W[words.which_N]
        heads = [words.distinct[which] for which in words.which_N[begin_D]]
        numbers_N[begin_D] = self._numbers(self.first, heads, self.tokenizer.encode_all)
        edges = np.repeat([EOS, BOS], len(batch))  # where a document ends, the next one begins
        return self._looked_up(np.insert(numbers_N, np.concatenate([end_D, begin_D]), edges))

    def _encode_following(self, words: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.continued_all([f" {word}" for word in words])

    def _numbers(self, known: dict[str, int], words: list[str], encode_all: EncodeAll) -> np.ndarray:
        new = [word for word in dict.fromkeys(words) if word not in known]
        for word, ids in zip(new, encode_all(new)):
            known[word] = self._enter(ids)
        self.characters += sum(map(len, new))
        return np.array([known[word] for word in words])

    def _enter(self, ids: list[int]) -> int:
        self.ids.extend(ids)
        self.starts.append(len(self.ids))
        return len(self.starts) - 2

    def _looked_up(self, numbers: np.ndarray) -> np.ndarray:
        starts, ids = np.array(self.starts), np.array(self.ids)
        begins = starts[numbers]
        lengths = starts[numbers + 1] - begins
        ends = lengths.cumsum()
        return ids[np.repeat(begins - ends + lengths, lengths) + np.arange(ends[-1])]


def in_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
