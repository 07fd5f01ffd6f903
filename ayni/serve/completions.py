"""/v1/completions: text or token ids go on as they are, without a dialogue format; `echo` scores the prompt itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from ayni.engine.score import PromptLogProbs, prompt_log_probs
from ayni.serve.chat import STREAM
from ayni.serve.errors import bad_request
from ayni.serve.events import EventStream
from ayni.serve.generation import Entry, Generation, Piece, engine_requests, head, usage
from ayni.serve.logprobs import completion_logprobs
from ayni.serve.models import LanguageModel
from ayni.serve.protocol import CompletionRequest
from ayni.serve.responses import Completion, CompletionChoice, CompletionLogprobs, Usage
from ayni.serve.serving import ERRORS, Serving, serving, unless_gone
from ayni.serve.text_stream import TextStream

router = APIRouter()
DEFAULT_TOKENS = 16  # OpenAI's
SCORED_TOKENS = 2048  # of prompts scored between two steps


@router.post("/v1/completions", response_model=Completion, responses={**STREAM, **ERRORS})
async def completions(
    body: CompletionRequest, request: Request, serving: Annotated[Serving, Depends(serving)]
) -> Response:
    """The continuation of one or many prompts."""
    model = serving.catalogue.language_model(body.model)
    if field := body.unsupported():
        raise bad_request(f"{field} is not supported by this server; leave it out", field, "unsupported_parameter")
    if body.max_tokens == 0 and not (body.echo and (body.n or 1) == 1):
        raise bad_request("max_tokens: 0 needs echo and n = 1; ask for one token at least", "max_tokens")
    prompts = await run_in_threadpool(_encode, model, body)
    echoes = await unless_gone(request, _echoes(serving, model, body, prompts)) if body.echo else None
    if body.max_tokens == 0:
        assert echoes is not None
        answer = _Answer(body, model, None, echoes, sum(map(len, prompts)))
    else:
        requests = engine_requests(model, prompts, body, body.max_tokens, DEFAULT_TOKENS, body.logprobs or 0)
        starts = None if echoes is None else [len(echo.text) for echo in echoes]
        answer = _Answer(body, model, Generation(serving, model, requests, starts=starts, goes_on=True), echoes)
    if body.stream:
        return EventStream(answer.events(), answer.cancel)
    whole = await unless_gone(request, answer.whole())
    return await run_in_threadpool(lambda: JSONResponse(whole.model_dump()))


def _encode(model: LanguageModel, body: CompletionRequest) -> list[list[int]]:
    encoded: list[list[int]] = []
    model.refuse_endless(*(prompt for prompt in body.prompts if isinstance(prompt, str)))
    for number, prompt in enumerate(body.prompts):
        ids = model.vocabulary.encode_prompt_text(prompt) if isinstance(prompt, str) else prompt
        ids = ids or [model.tokenizer.document_start]
        size = model.engine.model.settings.vocab_size
        if max(ids) >= size:
            raise bad_request(f"prompt {number}: token id {max(ids)}, but this model's ids end at {size - 1}", "prompt")
        if len(ids) > model.max_len:
            message = f"prompt {number} has {len(ids)} tokens, and this model's context holds {model.max_len}"
            raise bad_request(message, "prompt", "context_length_exceeded")
        encoded.append(ids)
    return encoded


async def _echoes(
    serving: Serving, model: LanguageModel, body: CompletionRequest, prompts: list[list[int]]
) -> list[Piece]:
    """The prompts as text, with log-probabilities where they are asked for."""
    scored: list[PromptLogProbs | None] = [None] * len(prompts)
    if body.logprobs is not None:
        network, top = model.engine.model, body.logprobs
        groups = await serving.call(*(partial(prompt_log_probs, network, prompts[g], top) for g in _groups(prompts)))
        scored = [one for group in groups for one in group]
    return await run_in_threadpool(lambda: [_echo(model, ids, known) for ids, known in zip(prompts, scored)])


def _groups(prompts: Sequence[list[int]]) -> list[slice]:
    """Neighbours that hold at most SCORED_TOKENS together, or one that is longer."""
    groups: list[slice] = []
    start = total = 0
    for number, ids in enumerate(prompts):
        if number > start and total + len(ids) > SCORED_TOKENS:
            groups.append(slice(start, number))
            start, total = number, 0
        total += len(ids)
    return [*groups, slice(start, len(prompts))]


def _echo(model: LanguageModel, ids: list[int], scored: PromptLogProbs | None) -> Piece:
    stream = TextStream(model.tokenizer)
    pieces, entries = [], []
    for place, token in enumerate(ids):
        logprob = scored.logprobs[place - 1] if scored and place else None
        top = scored.top[place - 1] if scored and scored.top and place else None
        entries.append(Entry(token, logprob, top, stream.length))
        pieces.append(stream.push(token))
    return Piece(0, "".join([*pieces, stream.finish()]), entries)


class _Answer:
    """Echo and generation together, in OpenAI's two shapes. Without a generation the echo is all there is."""

    def __init__(
        self,
        body: CompletionRequest,
        model: LanguageModel,
        generation: Generation | None,
        echoes: list[Piece] | None,
        prompt_tokens: int = 0,
    ) -> None:
        self.body, self.model, self.generation, self.prompt_tokens = body, model, generation, prompt_tokens
        n = body.n or 1
        self.echoes = [] if echoes is None else [echo for echo in echoes for _ in range(n)]
        self.head = head("cmpl", model)

    def cancel(self) -> None:
        if self.generation is not None:
            self.generation.cancel()

    async def whole(self) -> Completion:
        if self.generation is None:
            pieces = [Piece(index, "", [], "length") for index in range(len(self.echoes))]
        else:
            pieces = await self.generation.whole()
        if self.echoes:
            pieces = [
                Piece(piece.choice, echo.text + piece.text, echo.entries + piece.entries, piece.finish)
                for echo, piece in zip(self.echoes, pieces, strict=True)
            ]
        choices = await run_in_threadpool(lambda: [self._choice(piece) for piece in pieces])
        return Completion(**self.head, choices=choices, usage=self._usage())

    async def events(self) -> AsyncIterator[Completion]:
        for index, echo in enumerate(self.echoes):
            yield self._chunk(Piece(index, echo.text, echo.entries, None if self.generation else "length"))
        if self.generation is not None:
            async for batch in self.generation.pieces():
                for piece in batch:
                    if piece.text or piece.entries or piece.finish:
                        yield self._chunk(piece)
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield Completion(**self.head, choices=[], usage=self._usage())

    def _usage(self) -> Usage:
        return usage(self.prompt_tokens) if self.generation is None else self.generation.usage

    def _chunk(self, piece: Piece) -> Completion:
        return Completion(**self.head, choices=[self._choice(piece)])

    def _choice(self, piece: Piece) -> CompletionChoice:
        return CompletionChoice(
            index=piece.choice, text=piece.text, logprobs=self._logprobs(piece), finish_reason=piece.finish
        )

    def _logprobs(self, piece: Piece) -> CompletionLogprobs | None:
        if self.body.logprobs is None:
            return None
        return completion_logprobs(self.model.vocabulary, piece.entries, self.body.logprobs)
