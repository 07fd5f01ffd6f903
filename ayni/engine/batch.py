"""The running rows of a model and the queue before them; each step gives one token to some or all of them.

    advance: schedule -> run (prefill or decode one token for every running row) -> sample -> record
    release: the rows that ended leave, the last ones move into their slots

Shape letters: R running rows, P prompts, T tokens of a prompt, S cached positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ayni.engine.cache import KVCache, PrefillCache, Prefix
from ayni.engine.decoding import decode_step
from ayni.engine.int8_step import MOST_ROWS, Int8Step
from ayni.engine.request import Finish, Request, Top
from ayni.engine.rows import Rows
from ayni.engine.sampling import sample, top_log_probs
from ayni.engine.scheduler import Sample, Scheduler
from ayni.model.transformer import Transformer
from ayni.text.tokenizer import Tokenizer

# In bf16 a rounding is large enough to change a token, so a request's arithmetic must not depend on its batch mates:
# decoding runs at least so many rows (below, other product kernels are taken, which add in another order) ...
ROWS = 8
# ... and reads keys, and prefills prompts, in multiples of so many positions (vector loops treat the tail apart).
KEYS = 64


@dataclass
class Live:
    """A request that waits or runs; `left` counts its samples that did not end yet."""

    request: Request
    limit: int  # new tokens: what was asked, or what the context has room for
    left: int


@dataclass(frozen=True)
class Step:
    """One new token for each of the rows `slots`."""

    slots: slice
    samples: list[Sample]
    ids: NDArray[np.int64]
    logprobs: NDArray[np.float32]
    top: dict[int, Top]  # by row, of those that ask for it
    stopped: NDArray[np.bool_]  # by a stop id or a stop string
    full: NDArray[np.bool_]  # limit reached

    @property
    def ended(self) -> list[int]:
        """The slots to release."""
        return (self.slots.start + np.flatnonzero(self.stopped | self.full)).tolist()

    def finish(self, row: int) -> Finish | None:
        if self.stopped[row]:
            return "stop"
        return "length" if self.full[row] else None


class Runs(Protocol):
    """What an engine is made of: prompts are read by `model`, tokens decoded by `decoder`; mostly the same."""

    model: Transformer
    decoder: Transformer
    int8_step: Int8Step | None  # decodes in the decoder's place where rows are few
    compiled: bool
    tokenizer: Tokenizer | None
    max_len: int  # prompt and answer together


class Batch:
    """`max_rows` caps the rows of a step, `prefill_tokens` a prefill.

    `take_turns`: after a prefill the running rows decode once before the next one, so that newcomers, however many and
    however short, never hold up those who are under way.
    """

    def __init__(
        self,
        runs: Runs,
        max_rows: int,
        prefill_tokens: int,
        refill_at: int = 1,
        take_turns: bool = False,
    ) -> None:
        self.model, self.decoder, self.compiled = runs.model, runs.decoder, runs.compiled
        self.int8_step = runs.int8_step
        self.tokenizer, self.max_len = runs.tokenizer, runs.max_len
        self.pad_id = self.tokenizer.pad_id if self.tokenizer else None
        self.weight = self.model.tok_embeddings.weight
        coarse = self.weight.dtype == torch.bfloat16
        self.least_rows = ROWS if coarse and self.decoder is self.model else 1
        self.keys = KEYS if coarse or self.compiled else 1
        self.scheduler = Scheduler(max_rows, prefill_tokens, refill_at, self.keys)
        self.take_turns = take_turns
        self.prefilled = False  # the last step was a prefill
        self.live: dict[int, Live] = {}
        self._clear()

    def _clear(self) -> None:
        self.rows = Rows()
        rows = max(self.scheduler.max_rows, self.least_rows)
        self.cache = KVCache(self.model.settings, rows, _round_up(self.max_len, self.keys), self.weight)
        self.split: Prefix | None = None  # the prompt whose samples did not all find a slot yet

    @torch.inference_mode()
    def reserve(self, rows: int, longest_answer: int, most_stops: int) -> None:
        """Room for what is known to come, at once."""
        self.rows.reserve(rows, longest_answer, most_stops)
        self.cache.reserve(rows, 0)

    def add(self, number: int, request: Request) -> None:
        limit = min(request.max_new_tokens, self.max_len - len(request.prompt))
        self.live[number] = Live(request, limit, left=request.n)
        self.scheduler.add(number, len(request.prompt), request.n)

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """The request leaves queue and slots; nothing happens if it is in neither."""
        if self.live.pop(number, None) is not None:
            self._move(self.scheduler.cancel(number))
            if not self.scheduler.split_request:
                self.split = None

    @torch.inference_mode()
    def advance(self) -> Step:
        """One token for each admitted sample, or else for every running row."""
        decode = self.take_turns and self.prefilled and bool(self.scheduler.running)
        admitted = [] if decode else self.scheduler.admit()
        self.prefilled = bool(admitted)
        slots, logits_RV = self._prefill(admitted) if admitted else self._decode()
        ids, logprobs = self._sample(slots, logits_RV)
        top = self._top(slots, logits_RV)
        stopped, full = self.rows.record(slots, ids, logprobs)
        samples = self.scheduler.running[slots]
        return Step(slots, samples, ids, logprobs, top, stopped | self._said_stop(slots), full)

    @torch.inference_mode()
    def release(self, slots: list[int]) -> None:
        """The samples in these slots have ended."""
        for slot in slots:
            number = self.scheduler.running[slot].request
            self.live[number].left -= 1
            if not self.live[number].left:
                del self.live[number]
        self._move(self.scheduler.retire(slots))

    @torch.inference_mode()
    def trim(self) -> None:
        """Gives back memory that the running rows no longer need; all of it when nothing runs or waits."""
        running = len(self.scheduler.running)
        if self.scheduler.done:
            self._clear()
        elif running:
            self.cache.trim(running, int(self.rows.length[:running].max()))

    def _move(self, moves: list[tuple[int, int]]) -> None:
        if moves:
            self.rows.move(moves)
            self.cache.move(moves, int(self.rows.length[: len(self.scheduler.running)].max()))

    def _prefill(self, admitted: list[Sample]) -> tuple[slice, Tensor]:
        slots = slice(len(self.scheduler.running) - len(admitted), len(self.scheduler.running))
        prompts = {sample.request: tuple(self.live[sample.request].request.prompt) for sample in admitted}
        place = {
            prompt: index for index, prompt in enumerate(dict.fromkeys(prompts.values()))
        }  # equal ones share a row
        if admitted[0].nth > 0:
            assert self.split is not None
            prefix = self.split
        else:
            prefix = self._forward_prompts([list(prompt) for prompt in place])
        self.split = prefix.of(place[prompts[admitted[-1].request]]) if self.scheduler.split_request else None
        parents = self._to_device(np.array([place[prompts[sample.request]] for sample in admitted]))
        self.cache.reserve(slots.stop, prefix.layers[0][0].shape[2])
        self.cache.place(slots, prefix, parents)
        wanted = [self.live[number] for number in prompts]
        self.rows.reserve(
            slots.stop, max(live.limit for live in wanted), max(len(live.request.stop_ids) for live in wanted)
        )
        for slot, (number, index) in enumerate(admitted, slots.start):
            self.rows.place(slot, self.live[number].request, self.live[number].limit, index)
        return slots, prefix.logits_PV[parents]

    def _forward_prompts(self, prompts: list[list[int]]) -> Prefix:
        """Right-padded prompts under the causal mask: what follows a prompt's end cannot reach it.

        Padding stays at the position of the prompt's last token, so that it does not lengthen the row in the eyes of a
        rotation that depends on the row's length (dynamic RoPE scaling).
        """
        T = _round_up(max(map(len, prompts)), self.keys)
        tokens_PT = self._to_device(np.array([prompt + [0] * (T - len(prompt)) for prompt in prompts]))
        length_P = np.array([len(prompt) for prompt in prompts])
        positions_PT = self._to_device(np.minimum(np.arange(T), length_P[:, None] - 1))
        causal_1TT = torch.ones(1, T, T, dtype=torch.bool, device=self.weight.device).tril_()
        ends_P = self._to_device(np.arange(len(prompts)) * T + length_P - 1)
        cache = PrefillCache()
        logits_PV = self.model(tokens_PT, positions_PT, causal_1TT, cache, ends_P)
        return Prefix(cache.layers, logits_PV)

    def _decode(self) -> tuple[slice, Tensor]:
        """The last token of every running row, at the row's own position, over the used length of the cache."""
        running = len(self.scheduler.running)
        length_R = self.rows.length[:running]
        used = _round_up(int(length_R.max()) + 1, self.keys)
        idle = (0, max(0, self.least_rows - running))  # rows that write at position 0 of a free slot, for nobody
        tokens_R1 = self._to_device(np.pad(self.rows.last_ids(running), idle)[:, None])
        position_R1 = self._to_device(np.pad(length_R, idle)[:, None])
        self.cache.begin(position_R1.squeeze(1), used)
        if self.int8_step and running <= MOST_ROWS:
            logits_R1V = self.int8_step(tokens_R1.squeeze(1), position_R1.squeeze(1), self.cache).unsqueeze(1)
        elif self.compiled:
            logits_R1V = decode_step(self.decoder, tokens_R1, position_R1, self.cache)
        else:
            even = used == int(length_R.min()) + 1 and not idle[1]  # then every row sees all returned keys
            mask_R1S = None if even else (torch.arange(used, device=position_R1.device) <= position_R1).unsqueeze(1)
            logits_R1V = self.decoder(tokens_R1, position_R1, mask_R1S, self.cache)
        length_R += 1
        return slice(0, running), logits_R1V[:running].squeeze(1)

    def _sample(self, slots: slice, logits_RV: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        id_R, logprob_R = sample(
            logits_RV,
            self._to_device(self.rows.temperature[slots]),
            self._to_device(self.rows.top_p[slots]),
            self._to_device(self.rows.draws(slots)),
            self.pad_id,
        )
        return id_R.cpu().numpy(), logprob_R.cpu().numpy()

    def _top(self, slots: slice, logits_RV: Tensor) -> dict[int, Top]:
        """By row: the likeliest tokens of the full distribution at the row's temperature."""
        asking = np.flatnonzero(self.rows.top[slots])
        if not len(asking):
            return {}
        counts = self.rows.top[slots][asking].tolist()
        temperature = self._to_device(self.rows.temperature[slots][asking])
        logp, ids = top_log_probs(logits_RV[self._to_device(asking)], temperature, max(counts))
        ranked = zip(asking.tolist(), counts, ids.tolist(), logp.tolist())
        return {row: list(zip(row_ids[:count], row_logp[:count])) for row, count, row_ids, row_logp in ranked}

    def _said_stop(self, slots: slice) -> NDArray[np.bool_]:
        """Rows whose text now holds one of their stop strings; only the tail that the last token can complete is read."""
        said = np.zeros(slots.stop - slots.start, bool)
        for row in np.flatnonzero(self.rows.has_strings[slots]):
            assert self.tokenizer is not None
            slot = slots.start + int(row)
            stop_strings = self.live[self.scheduler.running[slot].request].request.stop_strings
            # A token is a byte of text at least; one more, because decoding may drop the first one's leading space.
            tail = max(len(stop.encode()) for stop in stop_strings) + 1
            count = int(self.rows.count[slot])
            text = self.tokenizer.decode(self.rows.ids[slot, max(0, count - tail) : count].tolist())
            said[row] = any(stop in text for stop in stop_strings)
        return said

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.weight.device)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
