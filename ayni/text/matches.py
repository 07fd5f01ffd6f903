"""Where evaluation samples and training documents share long stretches of tokens (paper A.6).

A *match* of length l lies at position i of a sample and j of a training document if
  1. its first 10 tokens are equal:  a[i + k] = b[j + k] for k < 10,
  2. at most 4 of its positions differ (the paper's "skip budget"),
  3. its last position does not differ,
and both stretches lie inside their sample and their document. It counts at minimum length L if l > L (paper: "longer than
10 tokens"; L = 10, 20, 30, 40, 50). A token of the sample is contaminated at L if it lies in a match that counts, the
skipped positions in between included (paper silent).

How all are found. On one diagonal (j - i fixed) a match must start in a run of 10 or more equal tokens. All matches that
start in the same run have the same 4 mismatches to spend and so the same furthest end; the longest one starts where the
run does, and covers the others. So it is enough to find the run starts, that is the equal 10-grams that go on with
different tokens to the left, and to measure each once:
  - the 10-grams of all samples are hashed and sorted, those with equal hashes by the token in front of them;
  - training tokens stream by; their rolling hashes go through a bit filter, then a binary search;
  - of an entry's positions only those with another token in front are kept, which two binary searches cut out;
  - what is left is compared token by token, so that equal hashes alone never make a match.

Letters: E tokens of all samples, end to end; S samples; G indexed 10-grams; U distinct hashes; T tokens of a training
chunk; H hits in it; P pairs (i, j); M matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

EXACT = 10  # tokens at the head of a match that must all be equal
SKIPS = 4  # positions that may differ behind them
PAIRS = 1 << 13  # pairs that are measured together: 2 MiB a block, which stays in the cache
BLOCK = 32  # tokens compared at a time
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd: 2^64 / golden ratio
_FILTER_BITS = 27


@dataclass(frozen=True)
class Matches:
    """Longest matches from their run starts: `begin` to `end` in the flat evaluation tokens, `place` in the chunk."""

    begin_M: np.ndarray
    end_M: np.ndarray
    place_M: np.ndarray


class Samples:
    """Evaluation samples as flat tokens with an index of their 10-grams."""

    def __init__(self, samples: Sequence[Sequence[int]]) -> None:
        lengths_S = np.array([len(sample) for sample in samples], np.int64)
        self.offsets = np.concatenate([[0], lengths_S.cumsum()])  # sample s: offsets[s] to offsets[s + 1]
        self.tokens_E = np.fromiter((token for sample in samples for token in sample), np.int64, self.offsets[-1])
        self.end_E = np.repeat(self.offsets[1:], lengths_S)
        self.sample_E = np.repeat(np.arange(len(samples)), lengths_S)
        before_E = np.concatenate([[-1], self.tokens_E[:-1]])[: len(self.tokens_E)]
        before_E[self.offsets[:-1][lengths_S > 0]] = -1  # nothing stands in front of a sample
        start_G = np.flatnonzero(self.end_E - np.arange(len(self.tokens_E)) >= EXACT)
        hash_G = rolling_hashes(self.tokens_E)[start_G]
        order_G = np.lexsort((before_E[start_G], hash_G))
        self.start_G, before_G = start_G[order_G], before_E[start_G][order_G]
        self.hash_U, first_U, count_U = np.unique(hash_G[order_G], return_index=True, return_counts=True)
        self.bounds = np.append(first_U, len(start_G))  # entry u: bounds[u] to bounds[u + 1]
        self.width = int(self.tokens_E.max(initial=0)) + 3
        self.key_G = np.repeat(np.arange(len(self.hash_U)), count_U) * self.width + before_G + 1
        self.filter = _bit_filter(self.hash_U)

    def matches(self, tokens_T: np.ndarray, wall_T: np.ndarray, open_E: np.ndarray | None = None) -> Iterator[Matches]:
        """The longest match from every run start with a chunk of training tokens, in batches; all are longer than 10.

        Where `wall_T` is true a document begins or ends: no match reaches into such a position. Where `open_E` is false
        nothing is to be learned any more from a match that starts there, and none is looked for.
        """
        tokens_T = tokens_T.astype(np.int64)
        tokens_T[wall_T] = -2  # equal to nothing
        walls = np.append(np.flatnonzero(wall_T), len(tokens_T))
        place_H, entry_H = self._hits(tokens_T)
        before_H = np.where(place_H > 0, tokens_T[place_H - 1], -2)
        for all_starts, all_places in self._run_starts(place_H, entry_H, before_H):
            wanted = slice(None) if open_E is None else open_E[all_starts]
            start_P, place_P = all_starts[wanted], all_places[wanted]
            room_P = np.minimum(self.end_E[start_P] - start_P, walls[np.searchsorted(walls, place_P)] - place_P)
            length_P = _lengths(self.tokens_E, tokens_T, start_P, place_P, room_P)
            counts = length_P > EXACT
            yield Matches(start_P[counts], (start_P + length_P)[counts], place_P[counts])

    def _hits(self, tokens_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of a chunk whose 10-gram has the hash of an entry, and that entry."""
        if len(tokens_T) < EXACT or not len(self.hash_U):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        hash_T = rolling_hashes(tokens_T)[: len(tokens_T) - EXACT + 1]
        cell_T = hash_T >> np.uint64(64 - _FILTER_BITS)
        passed = (self.filter[cell_T >> np.uint64(3)] >> (cell_T & np.uint64(7)).astype(np.uint8)) & 1
        place_H = np.flatnonzero(passed)
        hash_H = hash_T[place_H]
        entry_H = np.minimum(np.searchsorted(self.hash_U, hash_H), len(self.hash_U) - 1)
        found = self.hash_U[entry_H] == hash_H
        return place_H[found], entry_H[found]

    def _run_starts(
        self, place_H: np.ndarray, entry_H: np.ndarray, before_H: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(i, j) of every hit and every position of its entry with another token in front, at most PAIRS together."""
        # A token that no sample has, and a wall, equal nothing: key `width - 1` and key -1 lie outside every entry's keys.
        known_H = np.where((before_H >= 0) & (before_H < self.width - 2), before_H + 1, self.width - 1)
        key_H = entry_H * self.width + known_H
        equal_low, equal_high = np.searchsorted(self.key_G, key_H), np.searchsorted(self.key_G, key_H, side="right")
        low = np.stack([self.bounds[entry_H], equal_high], axis=1).ravel()  # in front of the equal ones, and behind
        high = np.stack([equal_low, self.bounds[entry_H + 1]], axis=1).ravel()
        place = np.repeat(place_H, 2)
        for low_P, place_P in _spread(low, high - low, place):
            yield self.start_G[low_P], place_P


def rolling_hashes(tokens: np.ndarray) -> np.ndarray:
    """hash[j] = sum_k m^(9 - k) x(token[j + k]) mod 2^64 over k < 10, x a mixing of 64 bits; the last 9 are not 10-grams."""
    m, m2, m4 = (np.uint64(pow(_MULTIPLIER, power, 2**64)) for power in (1, 2, 4))
    one = tokens.astype(np.uint64) * m
    one ^= one >> np.uint64(29)
    one *= np.uint64(0xBF58476D1CE4E5B9)
    one ^= one >> np.uint64(32)
    two = one * m + _later(one, 1)
    four = two * m2 + _later(two, 2)
    eight = four * m4 + _later(four, 4)
    ten = eight * m2 + _later(two, 8)
    return (ten ^ (ten >> np.uint64(31))) * m  # the top bits, which the filter looks at, depend on all the others


def _later(values: np.ndarray, by: int) -> np.ndarray:
    out = np.zeros_like(values)
    out[: max(0, len(values) - by)] = values[by:]
    return out


def _bit_filter(hash_U: np.ndarray) -> np.ndarray:
    bits = np.zeros(1 << _FILTER_BITS, bool)
    bits[hash_U >> np.uint64(64 - _FILTER_BITS)] = True
    return np.packbits(bits, bitorder="little")


def _spread(low: np.ndarray, count: np.ndarray, place: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """low[r], low[r] + 1, ..., count[r] of them, for every range r, each with place[r]: in batches of PAIRS."""
    kept = count > 0
    low, count, place = low[kept], count[kept], place[kept]
    ends = count.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    for first in range(0, total, PAIRS):
        number_P = np.arange(first, min(first + PAIRS, total))
        range_P = np.searchsorted(ends, number_P, side="right")
        yield low[range_P] + number_P - (ends - count)[range_P], place[range_P]


def _lengths(a: np.ndarray, b: np.ndarray, i_P: np.ndarray, j_P: np.ndarray, room_P: np.ndarray) -> np.ndarray:
    """Length of the longest match at each (i, j) within `room` tokens; 0 where the first 10 are not equal."""
    length_P = np.zeros(len(i_P), np.int64)
    misses_P = np.zeros(len(i_P), np.int64)
    alive = np.flatnonzero(room_P >= EXACT)
    at = 0
    while len(alive):
        step_B = at + np.arange(BLOCK)
        i_AB = np.minimum(i_P[alive, None] + step_B, len(a) - 1)
        j_AB = np.minimum(j_P[alive, None] + step_B, len(b) - 1)
        equal_AB = (a[i_AB] == b[j_AB]) & (step_B < room_P[alive, None])
        if at == 0:
            exact = equal_AB[:, :EXACT].all(axis=1)
            alive, equal_AB = alive[exact], equal_AB[exact]
        misses_AB = misses_P[alive, None] + (~equal_AB).cumsum(axis=1)
        end_AB = equal_AB & (misses_AB <= SKIPS)
        grows = end_AB.any(axis=1)
        length_P[alive[grows]] = at + BLOCK - end_AB[grows, ::-1].argmax(axis=1)
        misses_P[alive] = misses_AB[:, -1]
        at += BLOCK
        alive = alive[(misses_P[alive] <= SKIPS) & (room_P[alive] > at)]
    return length_P
