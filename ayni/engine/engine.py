"""Generation by continuous batching: many requests share each step; finished rows make room for waiting ones at once.

    while not done:  schedule -> run (prefill or decode one token for every running row) -> sample -> release

The same request gives the same answer whatever shares its batch: its uniforms are a function of (seed, sample, step)
alone, and its row attends to itself only (what is left is rounding, about 1e-6 in fp32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ayni.engine.batch import Batch, eval_mode
from ayni.engine.int8 import int8_copy
from ayni.engine.int8_step import Int8Step
from ayni.engine.request import Completion, Request, Top
from ayni.engine.scheduler import Sample
from ayni.model.transformer import Transformer
from ayni.text.tokenizer import Tokenizer

PREFILL_TOKENS = 4096  # padded prompt tokens of one forward pass

Progress = Callable[[int, int, int], None]  # (done samples, all samples, new tokens so far)


class Engine:
    """Samples from the live model: weights are shared, so that PPO samples from what it trains.

    `max_len` (default and upper bound: the model's context) caps prompt and answer together; `max_rows` caps the rows
    of a step, and with it the memory of the cache. `compiled`: decoding runs compiled layers (engine/decoding.py), which
    takes some seconds once and pays off over some thousand tokens. `int8`: tokens are decoded with a copy of the weights
    in int8, for a few streams (up to 8 rows a step by one call of C++); prompts are still read with the model's own. The tokenizer is needed for stop strings, and names the padding
    token that no answer may hold. Requests that come and go while others run: `ayni.engine.session.Session`.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer | None = None,
        max_rows: int = 256,
        max_len: int | None = None,
        compiled: bool = False,
        int8: bool = False,
    ) -> None:
        self.model = model
        self.decoder = int8_copy(model) if int8 else model
        self.int8_step = Int8Step.of(self.decoder) if int8 else None
        self.compiled = compiled
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_len = min(max_len or model.settings.max_seq_len, model.settings.max_seq_len)

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[list[Completion]]:
        """The n completions of each request, in the order given."""
        for number, request in enumerate(requests):
            try:
                self.check(request)
            except ValueError as error:
                raise ValueError(f"request {number}: {error}") from None
        total = sum(request.n for request in requests)
        batch = self._batch(requests, rows=min(self.max_rows, total))
        completions: list[dict[int, Completion]] = [{} for _ in requests]
        tops: dict[Sample, list[Top]] = {}
        finished = new_tokens = 0
        with eval_mode(self.model):
            while not batch.scheduler.done:
                step = batch.advance()
                for row, top in step.top.items():
                    tops.setdefault(step.samples[row], []).append(top)
                ended = step.ended
                for slot in ended:
                    row = slot - step.slots.start
                    sample, finish = step.samples[row], step.finish(row)
                    assert finish is not None
                    completion = Completion(*batch.rows.written(slot), finish, tops.pop(sample, None))
                    completions[sample.request][sample.nth] = completion
                    finished += 1
                batch.release(ended)
                new_tokens += len(step.ids)
                if progress:
                    progress(finished, total, new_tokens)
        return [[samples[nth] for nth in sorted(samples)] for samples in completions]

    def stream(self, request: Request) -> Iterator[int]:
        """The ids of the request's first sample as they come, EOS included."""
        self.check(request)
        batch = self._batch([replace(request, n=1)], rows=1)
        with eval_mode(self.model):
            while not batch.scheduler.done:
                step = batch.advance()
                batch.release(step.ended)
                yield int(step.ids[0])

    def check(self, request: Request) -> None:
        """ValueError if the request cannot be served by this model in this context."""
        vocab_size = self.model.settings.vocab_size
        if len(request.prompt) >= self.max_len:
            raise ValueError(
                f"its prompt has {len(request.prompt)} tokens and the context holds {self.max_len}, the answer "
                "included; shorten the prompt or use a model with a longer context"
            )
        if not 0 <= min(request.prompt) <= max(request.prompt) < vocab_size:
            wrong = next(id for id in request.prompt if not 0 <= id < vocab_size)
            raise ValueError(f"its prompt holds token {wrong}, and the model knows 0 to {vocab_size - 1}")
        if request.top_logprobs > vocab_size:
            raise ValueError(f"top_logprobs is {request.top_logprobs}, and the vocabulary has {vocab_size} tokens")
        if request.stop_strings and self.tokenizer is None:
            raise ValueError("stop strings need an Engine(model, tokenizer)")

    def _batch(self, requests: Sequence[Request], rows: int) -> Batch:
        """All requests queued, longest prompts first: neighbours are of similar length (little padding), and the most
        memory is needed early. Freed slots wait for company: many small prefills would each pay a whole forward pass.
        """
        batch = Batch(self, rows, PREFILL_TOKENS, refill_at=max(1, rows // 8))
        for number in sorted(range(len(requests)), key=lambda number: -len(requests[number].prompt)):
            batch.add(number, requests[number])
        longest_answer = max((live.limit for live in batch.live.values()), default=0)
        batch.reserve(rows, longest_answer, max((len(request.stop_ids) for request in requests), default=0))
        return batch
