"""Who runs in which slot: a pure state machine, testable without a model.

    add --> waiting --admit--> running (slots 0..R-1, always dense) --retire--> finished
               |                  |
               +------cancel------+

Running samples fill the first R slots without holes, so that a decoding step costs what its running rows cost:
`retire` and `cancel` say which rows of the tail move into the freed slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    """One answer to be written: the `nth` of the n samples of a request."""

    request: int
    nth: int


@dataclass
class Waiting:
    """A request in the queue: its first `taken` samples left it already."""

    request: int
    prompt_length: int
    n: int
    taken: int = 0


class Scheduler:
    """First come, first served. `refill_at`: how many slots must be free (or as many as samples wait) to admit.

    `bucket` above 1: prompts are prefilled in rows of a multiple of so many tokens, and only with prompts of the same
    multiple, so that how a prompt is padded depends on its own length alone.
    """

    def __init__(self, max_rows: int, prefill_tokens: int, refill_at: int = 1, bucket: int = 1) -> None:
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self.refill_at = refill_at
        self.bucket = bucket
        self.waiting: deque[Waiting] = deque()
        self.waiting_samples = 0
        self.running: list[Sample] = []  # position = slot

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    @property
    def split_request(self) -> bool:
        """Whether the request admitted last still has samples waiting: its prefilled prompt will be needed again."""
        return bool(self.waiting) and self.waiting[0].taken > 0

    def add(self, request: int, prompt_length: int, n: int) -> None:
        self.waiting.append(Waiting(request, prompt_length, n))
        self.waiting_samples += n

    def admit(self) -> list[Sample]:
        """The samples to prefill now, in the slots after the running ones; empty: decode instead.

        Their distinct prompts, padded to the longest, hold at most `prefill_tokens` tokens (one prompt always goes).
        Left-over samples of a request whose prompt was prefilled earlier come alone.
        """
        free = self.max_rows - len(self.running)
        if self.running and free < min(self.refill_at, self.waiting_samples):
            return []
        admitted: list[Sample] = []
        left_over = self.split_request
        prompts = longest = 0
        while self.waiting and len(admitted) < free:
            head = self.waiting[0]
            if head.taken == 0:
                padded = -(-head.prompt_length // self.bucket) * self.bucket
                if left_over or (prompts > 0 and self.bucket > 1 and padded != longest):
                    break
                longest = max(longest, padded)
                if prompts > 0 and (prompts + 1) * longest > self.prefill_tokens:
                    break
                prompts += 1
            until = min(head.n, head.taken + free - len(admitted))
            admitted += [Sample(head.request, nth) for nth in range(head.taken, until)]
            head.taken = until
            if until == head.n:
                self.waiting.popleft()
        self.waiting_samples -= len(admitted)
        self.running += admitted
        return admitted

    def retire(self, slots: Sequence[int]) -> list[tuple[int, int]]:
        """Frees `slots`; returns the moves (from, to) that keep the running rows in front."""
        gone = set(slots)
        stay = len(self.running) - len(gone)
        tail = [slot for slot in range(stay, len(self.running)) if slot not in gone]
        moves = list(zip(tail, sorted(slot for slot in gone if slot < stay), strict=True))
        for source, target in moves:
            self.running[target] = self.running[source]
        del self.running[stay:]
        return moves

    def cancel(self, request: int) -> list[tuple[int, int]]:
        """Takes the request's samples out of queue and slots; returns the moves of `retire`."""
        for waiting in self.waiting:
            if waiting.request == request:
                self.waiting.remove(waiting)
                self.waiting_samples -= waiting.n - waiting.taken
                break
        return self.retire([slot for slot, sample in enumerate(self.running) if sample.request == request])
