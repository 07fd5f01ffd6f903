"""From a checked HTTP request to text: engine requests, and the choices' text as it comes, with the tokens behind it."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from ayni.engine.request import Request
from ayni.serve.errors import bad_request
from ayni.serve.models import LanguageModel
from ayni.serve.protocol import MAX_CHOICES, Sampling
from ayni.serve.responses import Usage
from ayni.serve.serving import Serving
from ayni.serve.text_stream import TextStream
from ayni.serve.worker import Produced
from ayni.text.dialogue import stop_ids

COLDEST = 1e-3  # temperatures below are greedy: logits divided by less leave the range of fp32
NARROWEST = 1e-6  # top_p = 0 means the likeliest token alone, which any smaller share does, too


@dataclass(frozen=True)
class Entry:
    """A token of a text as log-probabilities are reported of it."""

    id: int
    logprob: float | None  # None: the first token of a prompt
    top: list[tuple[int, float]] | None
    offset: int  # characters of the text in front of it


@dataclass(frozen=True)
class Piece:
    """What became certain of one choice."""

    choice: int
    text: str
    entries: list[Entry]
    finish: Literal["stop", "length"] | None = None


class ChoiceText:
    """One choice: its tokens come in, pieces go out. The end token is counted, but is no part of the text.

    `context`: of a completion, the prompt that it continues. There the end token has its log-probability among the others
    (harnesses that score a prompt drop exactly one entry); in a chat, as with OpenAI, it has none.
    """

    def __init__(
        self,
        index: int,
        model: LanguageModel,
        stop_strings: Sequence[str],
        strip: bool,
        start: int,
        context: Sequence[int] = (),
    ) -> None:
        self.index, self.start = index, start
        self.tokens = 0
        self.finished = False
        self._ends = stop_ids(model.tokenizer)
        self._goes_on = bool(context)
        self._stream = TextStream(model.tokenizer, stop_strings, strip, context)
        self._out = 0
        self._pending: list[Entry] = []

    def take(self, token: Produced) -> Piece:
        self.tokens += 1
        text = ""
        ends = token.id in self._ends
        if not ends or self._goes_on:
            self._pending.append(Entry(token.id, token.logprob, token.top, self._stream.length))
        if not ends:
            text = self._stream.push(token.id)
        if token.finish is not None:
            text += self._stream.finish()
        self._out += len(text)
        finish = "stop" if self._stream.stopped else token.finish
        self.finished = finish is not None
        return Piece(self.index, text, self._told(), finish)

    def _told(self) -> list[Entry]:
        """Tokens whose text is out; at an end that no stop string made, all."""
        all_out = self.finished and not self._stream.stopped
        told = [entry for entry in self._pending if all_out or entry.offset < self._out]
        self._pending = [] if self.finished else self._pending[len(told) :]
        return [replace(entry, offset=self.start + entry.offset) for entry in told]


class Generation:
    """The choices of one HTTP request, under way: numbered prompt by prompt, sample by sample."""

    def __init__(
        self,
        serving: Serving,
        model: LanguageModel,
        requests: Sequence[Request],
        *,
        strip: bool = False,
        starts: Sequence[int] | None = None,
        goes_on: bool = False,  # the text continues the prompt's: its first word keeps the space in front
    ) -> None:
        self._serving, self._model = serving, model
        self._began = time.perf_counter()
        self.job = serving.submit(model.id, requests)
        self.prompt_tokens = sum(len(request.prompt) for request in requests)
        serving.metrics.prompt_tokens.labels(model.id).inc(self.prompt_tokens)
        places = [(request, start) for request, start in zip(requests, starts or [0] * len(requests))]
        owners = [(request, start) for request, start in places for _ in range(request.n)]
        self.choices = [
            ChoiceText(index, model, request.stop_strings, strip, start, request.prompt if goes_on else ())
            for index, (request, start) in enumerate(owners)
        ]

    def cancel(self) -> None:
        self.job.cancel()

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """Batch by batch as the worker delivers them; ends when every choice has ended."""
        first = True
        with self._serving.refusals():
            async for batch in self.job:
                if first:
                    self._serving.metrics.first_token.observe(time.perf_counter() - self._began)
                    first = False
                self._serving.metrics.new_tokens.labels(self._model.id).inc(len(batch))
                live = [token for token in batch if not self.choices[token.choice].finished]
                yield [self.choices[token.choice].take(token) for token in live]
                if all(choice.finished for choice in self.choices):
                    break
        self.cancel()

    async def whole(self) -> list[Piece]:
        """Every choice in one piece."""
        parts: list[list[Piece]] = [[] for _ in self.choices]
        try:
            async for batch in self.pieces():
                for piece in batch:
                    parts[piece.choice].append(piece)
        finally:
            self.cancel()
        return [
            Piece(
                index,
                "".join(piece.text for piece in pieces),
                [entry for piece in pieces for entry in piece.entries],
                pieces[-1].finish,
            )
            for index, pieces in enumerate(parts)
        ]

    @property
    def usage(self) -> Usage:
        return usage(self.prompt_tokens, sum(choice.tokens for choice in self.choices))


class Head(TypedDict):
    """What every object of an answer begins with."""

    id: str
    created: int
    model: str
    system_fingerprint: str


def head(prefix: str, model: LanguageModel) -> Head:
    return Head(
        id=f"{prefix}-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=model.id,
        system_fingerprint=model.fingerprint,
    )


def usage(prompt_tokens: int, new_tokens: int = 0) -> Usage:
    total = prompt_tokens + new_tokens
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=new_tokens, total_tokens=total)


def engine_requests(
    model: LanguageModel, prompts: Sequence[list[int]], body: Sampling, asked: int | None, default: int | None, top: int
) -> list[Request]:
    """One per prompt. `asked` new tokens must fit into the context; without it there are `default`, or what fits."""
    n = body.n or 1
    if n * len(prompts) > MAX_CHOICES:
        raise bad_request(
            f"n: {len(prompts)} prompts with {n} answers each; at most {MAX_CHOICES} answers a request", "n"
        )
    temperature = 1.0 if body.temperature is None else body.temperature
    return [
        Request(
            prompt=prompt,
            max_new_tokens=_new_tokens(model, len(prompt), asked, default),
            temperature=temperature if temperature >= COLDEST else 0.0,
            top_p=max(NARROWEST, 1.0 if body.top_p is None else body.top_p),
            seed=random.getrandbits(64) if body.seed is None else body.seed % 2**64,
            n=n,
            stop_ids=stop_ids(model.tokenizer),
            stop_strings=body.stop_strings,
            top_logprobs=top,
        )
        for prompt in prompts
    ]


def _new_tokens(model: LanguageModel, prompt: int, asked: int | None, default: int | None) -> int:
    room = model.max_len - prompt
    if room < max(1, asked or 1):
        wanted = (
            f"; max_tokens asks for {asked} more" if asked is not None else ", and an answer needs at least one more"
        )
        raise bad_request(
            f"this model's context holds {model.max_len} tokens. The prompt has {prompt}{wanted} "
            f"({prompt + (asked or 1)} in all). Shorten the prompt or ask for fewer tokens",
            "max_tokens" if room > 0 else None,
            "context_length_exceeded",
        )
    return asked if asked is not None else min(room, default or room)
