"""Generation by continuous batching: many requests share each step; finished rows make room for waiting ones at once.

    while not done:  schedule -> run (prefill or decode one token for every running row) -> sample -> postprocess

The same request gives the same answer whatever shares its batch: its uniforms are a function of (seed, sample, step)
alone, and its row attends to itself only (what is left is rounding, about 1e-6 in fp32).
Shape letters: R running rows, P prompts, T tokens of a prompt, S cached positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ayni.engine.cache import KVCache, PrefillCache, Prefix
from ayni.engine.rows import Rows
from ayni.engine.sampling import sample
from ayni.engine.scheduler import Sample, Scheduler
from ayni.model.transformer import Transformer
from ayni.text.tokenizer import Tokenizer

PREFILL_TOKENS = 4096  # padded prompt tokens of one forward pass

Progress = Callable[[int, int, int], None]  # (done samples, all samples, new tokens so far)


@dataclass(frozen=True)
class Request:
    """A prompt, how to continue it, and n: its samples share one prefill and differ by their random stream.

    Requests of equal seed see equal uniforms: give each its own where answers are to be independent.
    """

    prompt: list[int]
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0  # below 1 the log-probabilities are not those of the sampling distribution: not for PPO
    seed: int = 0
    n: int = 1
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for good, problem in (
            (len(self.prompt) > 0, "the prompt holds no token; begin it with BOS"),
            (self.max_new_tokens > 0, f"max_new_tokens is {self.max_new_tokens}; ask for one token at least"),
            (self.temperature >= 0, f"temperature is {self.temperature}; give 0 (greedy) or more"),
            (0 < self.top_p <= 1, f"top_p is {self.top_p}; give a share in (0, 1]"),
            (self.n > 0, f"n is {self.n}; ask for one sample at least"),
            (0 <= self.seed < 2**64, f"seed is {self.seed}; give an integer in [0, 2^64)"),
        ):
            if not good:
                raise ValueError(f"request: {problem}")


@dataclass(frozen=True)
class Completion:
    """New ids with what ended them (EOS, or the tokens of a stop string) and log_softmax(logits / T) of each."""

    ids: list[int]
    logprobs: list[float]
    finish: Literal["stop", "length"]


class Engine:
    """Samples from the live model: weights are shared, so that PPO samples from what it trains.

    `max_len` (default and upper bound: the model's context) caps prompt and answer together; `max_rows` caps the rows
    of a step, and with it the memory of the cache. The tokenizer is needed for stop strings, and names the padding
    token that no answer may hold.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer | None = None, max_rows: int = 256, max_len: int | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_len = min(max_len or model.settings.max_seq_len, model.settings.max_seq_len)

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[list[Completion]]:
        """The n completions of each request, in the order given."""
        run = _Run(self, requests)
        new_tokens = 0
        with _eval_mode(self.model):
            while not run.scheduler.done:
                new_tokens += len(run.step())
                if progress:
                    progress(run.finished, run.total, new_tokens)
        return [[completions[index] for index in sorted(completions)] for completions in run.completions]

    def stream(self, request: Request) -> Iterator[int]:
        """The ids of the request's first sample as they come, EOS included."""
        run = _Run(self, [request])
        with _eval_mode(self.model):
            while not run.scheduler.done:
                yield int(run.step()[0])


class _Run:
    """The state of one `generate`."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        for number, request in enumerate(requests):
            if len(request.prompt) >= engine.max_len:
                raise ValueError(
                    f"request {number}: its prompt has {len(request.prompt)} tokens and the context holds "
                    f"{engine.max_len}, the answer included; shorten the prompt or use a model with a longer context"
                )
            if request.stop_strings and engine.tokenizer is None:
                raise ValueError(f"request {number}: stop strings need an Engine(model, tokenizer)")
        self.model, self.tokenizer, self.requests = engine.model, engine.tokenizer, requests
        self.pad_id = engine.tokenizer.pad_id if engine.tokenizer else None
        self.total = sum(request.n for request in requests)
        self.finished = 0
        self.completions: list[dict[int, Completion]] = [{} for _ in requests]
        rows = min(engine.max_rows, self.total)
        self.limits = [min(request.max_new_tokens, engine.max_len - len(request.prompt)) for request in requests]
        self.scheduler = Scheduler(
            [len(request.prompt) for request in requests], [request.n for request in requests], rows, PREFILL_TOKENS
        )
        most_stops = max((len(request.stop_ids) for request in requests), default=0)
        self.rows = Rows(rows, max(self.limits, default=0), most_stops)
        self.weight = engine.model.tok_embeddings.weight
        self.cache = KVCache(engine.model.settings, rows, engine.max_len, self.weight)
        self.split: Prefix | None = None  # the prompt whose samples did not all find a slot yet

    @torch.inference_mode()
    def step(self) -> NDArray[np.int64]:
        """One token for each admitted sample, or else for every running row; returns them."""
        admitted = self.scheduler.admit()
        slots, logits_RV = self._prefill(admitted) if admitted else self._decode()
        ids, logprobs = self._sample(slots, logits_RV)
        stopped, full = self.rows.record(slots, ids, logprobs)
        self._retire(slots, stopped | self._said_stop(slots), full)
        return ids

    def _prefill(self, admitted: list[Sample]) -> tuple[slice, Tensor]:
        """Right-padded prompts under the causal mask: what follows a prompt's end cannot reach it."""
        slots = slice(len(self.scheduler.running) - len(admitted), len(self.scheduler.running))
        order = {request: prompt for prompt, request in enumerate(dict.fromkeys(sample.request for sample in admitted))}
        if admitted[0].nth > 0:
            assert self.split is not None
            prefix = self.split
        else:
            prefix = self._forward_prompts([self.requests[request].prompt for request in order])
        self.split = prefix.last() if self.scheduler.split_request else None
        parents = self._to_device(np.array([order[sample.request] for sample in admitted]))
        self.cache.reserve(prefix.layers[0][0].shape[2])
        self.cache.place(slots, prefix, parents)
        for slot, (number, index) in enumerate(admitted, slots.start):
            request = self.requests[number]
            self.rows.place(
                slot,
                length=len(request.prompt),
                limit=self.limits[number],
                temperature=request.temperature,
                top_p=request.top_p,
                stop_ids=request.stop_ids,
                has_strings=bool(request.stop_strings),
                seed=request.seed,
                sample=index,
            )
        return slots, prefix.logits_PV[parents]

    def _forward_prompts(self, prompts: list[list[int]]) -> Prefix:
        T = max(map(len, prompts))
        tokens_PT = self._to_device(np.array([prompt + [0] * (T - len(prompt)) for prompt in prompts]))
        causal_1TT = torch.ones(1, T, T, dtype=torch.bool, device=self.weight.device).tril_()
        ends_P = self._to_device(np.array([row * T + len(prompt) - 1 for row, prompt in enumerate(prompts)]))
        cache = PrefillCache()
        logits_PV = self.model(tokens_PT, mask_BTS=causal_1TT, cache=cache, keep_N=ends_P)
        return Prefix(cache.layers, logits_PV)

    def _decode(self) -> tuple[slice, Tensor]:
        """The last token of every running row, at the row's own position, over the used length of the cache."""
        running = len(self.scheduler.running)
        length_R = self.rows.length[:running]
        used = int(length_R.max()) + 1
        tokens_R1 = self._to_device(self.rows.last_ids(running)[:, None])
        position_R1 = self._to_device(length_R[:, None].copy())
        even = used == int(length_R.min()) + 1  # then every row sees all returned keys
        mask_R1S = None if even else (torch.arange(used, device=position_R1.device) <= position_R1).unsqueeze(1)
        self.cache.begin(position_R1.squeeze(1), used)
        logits_R1V = self.model(tokens_R1, position_R1, mask_R1S, self.cache)
        length_R += 1
        return slice(0, running), logits_R1V.squeeze(1)

    def _sample(self, slots: slice, logits_RV: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        id_R, logprob_R = sample(
            logits_RV,
            self._to_device(self.rows.temperature[slots]),
            self._to_device(self.rows.top_p[slots]),
            self._to_device(self.rows.draws(slots)),
            self.pad_id,
        )
        return id_R.cpu().numpy(), logprob_R.cpu().numpy()

    def _said_stop(self, slots: slice) -> NDArray[np.bool_]:
        """Rows whose text now holds one of their stop strings; only the tail that the last token can complete is read."""
        said = np.zeros(slots.stop - slots.start, bool)
        for row in np.flatnonzero(self.rows.has_strings[slots]):
            assert self.tokenizer is not None
            slot = slots.start + int(row)
            stop_strings = self.requests[self.scheduler.running[slot].request].stop_strings
            # A token is a byte of text at least; one more, because decoding may drop the first one's leading space.
            tail = max(len(stop.encode()) for stop in stop_strings) + 1
            count = int(self.rows.count[slot])
            text = self.tokenizer.decode(self.rows.ids[slot, max(0, count - tail) : count].tolist())
            said[row] = any(stop in text for stop in stop_strings)
        return said

    def _retire(self, slots: slice, stopped: NDArray[np.bool_], full: NDArray[np.bool_]) -> None:
        ended = np.flatnonzero(stopped | full)
        if not len(ended):
            return
        for row in ended.tolist():
            slot = slots.start + row
            number, index = self.scheduler.running[slot]
            count = self.rows.count[slot]
            self.completions[number][index] = Completion(
                self.rows.ids[slot, :count].tolist(),
                self.rows.logprobs[slot, :count].tolist(),
                "stop" if stopped[row] else "length",
            )
        self.finished += len(ended)
        if moves := self.scheduler.retire((slots.start + ended).tolist()):
            self.rows.move(moves)
            self.cache.move(moves, int(self.rows.length[: len(self.scheduler.running)].max()))

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.weight.device)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
