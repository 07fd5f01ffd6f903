"""What each running row is doing, as arrays over the slots: on the host, since a step reads and writes it all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def uniforms(seed: int, sample: int, count: int) -> NDArray[np.float64]:
    """u_0 .. u_(count-1) in [0, 1): a counter-based stream that (seed, sample, step) alone decide.

    Philox takes the pair as its key, so neither batch mates nor their order can shift a draw.
    """
    key = np.array([seed, sample], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


class Rows:
    """Arrays indexed by slot. `length` counts the tokens whose keys are cached, `count` the new tokens so far."""

    def __init__(self, rows: int, longest_answer: int, most_stops: int) -> None:
        self.length = np.zeros(rows, np.int64)
        self.count = np.zeros(rows, np.int64)
        self.limit = np.zeros(rows, np.int64)
        self.temperature = np.ones(rows, np.float32)
        self.top_p = np.ones(rows, np.float32)
        self.stops = np.full((rows, most_stops), -1, np.int64)
        self.has_strings = np.zeros(rows, bool)
        self.uniform = np.zeros((rows, longest_answer), np.float64)
        self.ids = np.zeros((rows, longest_answer), np.int64)
        self.logprobs = np.zeros((rows, longest_answer), np.float32)

    def place(
        self,
        slot: int,
        *,
        length: int,
        limit: int,
        temperature: float,
        top_p: float,
        stop_ids: Sequence[int],
        has_strings: bool,
        seed: int,
        sample: int,
    ) -> None:
        self.length[slot], self.count[slot], self.limit[slot] = length, 0, limit
        self.temperature[slot], self.top_p[slot] = temperature, top_p
        self.stops[slot] = -1
        self.stops[slot, : len(stop_ids)] = stop_ids
        self.has_strings[slot] = has_strings
        self.uniform[slot, :limit] = uniforms(seed, sample, limit)

    def draws(self, slots: slice) -> NDArray[np.float64]:
        """Each row's uniform of this step."""
        return np.take_along_axis(self.uniform[slots], self.count[slots, None], 1)[:, 0]

    def last_ids(self, running: int) -> NDArray[np.int64]:
        return np.take_along_axis(self.ids[:running], self.count[:running, None] - 1, 1)[:, 0]

    def record(
        self, slots: slice, ids: NDArray[np.int64], logprobs: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Appends one token per row; returns (ended by a stop id, reached its limit)."""
        here = np.arange(slots.start, slots.stop)
        self.ids[here, self.count[slots]] = ids
        self.logprobs[here, self.count[slots]] = logprobs
        self.count[slots] += 1
        return (self.stops[slots] == ids[:, None]).any(1), self.count[slots] >= self.limit[slots]

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        source, target = map(list, zip(*moves))
        for array in vars(self).values():
            array[target] = array[source]
