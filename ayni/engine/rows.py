"""What each running row is doing, as arrays over the slots: on the host, since a step reads and writes it all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ayni.engine.request import Request


def uniforms(seed: int, sample: int, count: int) -> NDArray[np.float64]:
    """u_0 .. u_(count-1) in [0, 1): a counter-based stream that (seed, sample, step) alone decide.

    Philox takes the pair as its key, so neither batch mates nor their order can shift a draw.
    """
    key = np.array([seed, sample], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


class Rows:
    """Arrays indexed by slot. `length` counts the tokens whose keys are cached, `count` the new tokens so far."""

    def __init__(self) -> None:
        self.length = np.zeros(0, np.int64)
        self.count = np.zeros(0, np.int64)
        self.limit = np.zeros(0, np.int64)
        self.temperature = np.zeros(0, np.float32)
        self.top_p = np.zeros(0, np.float32)
        self.top = np.zeros(0, np.int64)
        self.has_strings = np.zeros(0, bool)
        self.stops = np.zeros((0, 0), np.int64)
        self.uniform = np.zeros((0, 0), np.float64)
        self.ids = np.zeros((0, 0), np.int64)
        self.logprobs = np.zeros((0, 0), np.float32)

    def reserve(self, rows: int, longest_answer: int, most_stops: int) -> None:
        """Room for that many slots, new tokens and stop ids, somewhat more than asked once there is some."""
        have_rows, have_stops = self.stops.shape
        have_answer = self.ids.shape[1]
        if rows > have_rows or longest_answer > have_answer or most_stops > have_stops:
            rows, longest_answer, most_stops = (
                have if wanted <= have else max(wanted, have + have // 2)
                for wanted, have in ((rows, have_rows), (longest_answer, have_answer), (most_stops, have_stops))
            )
            for name, old in vars(self).items():
                width = () if old.ndim == 1 else (most_stops if name == "stops" else longest_answer,)
                new = np.full((rows, *width), -1 if name == "stops" else 0, old.dtype)
                new[tuple(map(slice, old.shape))] = old
                setattr(self, name, new)

    def place(self, slot: int, request: Request, limit: int, nth: int) -> None:
        """The request's `nth` sample begins in this slot."""
        self.length[slot], self.count[slot], self.limit[slot] = len(request.prompt), 0, limit
        self.temperature[slot], self.top_p[slot] = request.temperature, request.top_p
        self.top[slot] = request.top_logprobs
        self.stops[slot] = -1
        self.stops[slot, : len(request.stop_ids)] = request.stop_ids
        self.has_strings[slot] = bool(request.stop_strings)
        self.uniform[slot, :limit] = uniforms(request.seed, nth, limit)

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

    def written(self, slot: int) -> tuple[list[int], list[float]]:
        """The slot's new ids and their log-probabilities."""
        count = self.count[slot]
        return self.ids[slot, :count].tolist(), self.logprobs[slot, :count].tolist()

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        source, target = map(list, zip(*moves))
        for array in vars(self).values():
            array[target] = array[source]
