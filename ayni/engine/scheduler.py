"""Who runs in which slot: a pure state machine, testable without a model.

    waiting --admit--> running (slots 0..R-1, always dense) --retire--> finished

Running samples fill the first R slots without holes, so that a decoding step costs what its running rows cost:
`retire` says which rows of the tail move into the freed slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """One answer to be written: the `nth` of the n samples of a request."""

    request: int
    nth: int


class Scheduler:
    def __init__(self, prompt_lengths: Sequence[int], n_samples: Sequence[int], max_rows: int, prefill_tokens: int):
        self.prompt_lengths = prompt_lengths
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        # Freed slots wait for company: many small prefills would each pay a whole forward pass.
        self.refill_at = max(1, max_rows // 8)
        # Longest prompts first: neighbours are of similar length (little padding), the most memory is needed early.
        order = sorted(range(len(prompt_lengths)), key=lambda request: -prompt_lengths[request])
        self.waiting = deque(Sample(request, index) for request in order for index in range(n_samples[request]))
        self.running: list[Sample] = []  # position = slot

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    @property
    def split_request(self) -> bool:
        """Whether the request admitted last still has samples waiting: its prefilled prompt will be needed again."""
        return bool(self.waiting) and self.waiting[0].nth > 0

    def admit(self) -> list[Sample]:
        """The samples to prefill now, in the slots after the running ones; empty: decode instead.

        Their distinct prompts, padded to the longest, hold at most `prefill_tokens` tokens (one prompt always goes).
        Left-over samples of a request whose prompt was prefilled earlier come alone.
        """
        free = self.max_rows - len(self.running)
        if self.running and free < min(self.refill_at, len(self.waiting)):
            return []
        admitted: list[Sample] = []
        left_over = self.split_request
        prompts = 0
        longest = self.prompt_lengths[self.waiting[0].request] if self.waiting else 0
        while self.waiting and len(admitted) < free:
            sample = self.waiting[0]
            if sample.nth == 0:
                if left_over or (prompts > 0 and (prompts + 1) * longest > self.prefill_tokens):
                    break
                prompts += 1
            admitted.append(self.waiting.popleft())
        self.running.extend(admitted)
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
