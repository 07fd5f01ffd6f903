"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from ayni.serve.errors import bad_request
from ayni.serve.events import EventStream
from ayni.serve.generation import Generation, Piece, engine_requests, head
from ayni.serve.logprobs import chat_logprobs
from ayni.serve.models import LanguageModel
from ayni.serve.protocol import ChatRequest
from ayni.serve.responses import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    Delta,
)
from ayni.serve.serving import ERRORS, Serving, serving, unless_gone
from ayni.text.dialogue import encode_prompt

router = APIRouter()
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Whole, or as events of the chunk objects"}
}


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses={**STREAM, **ERRORS})
async def chat_completions(
    body: ChatRequest, request: Request, serving: Annotated[Serving, Depends(serving)]
) -> Response:
    """An answer to a dialogue that ends with the user, in the model's own dialogue format."""
    model = serving.catalogue.language_model(body.model)
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    _refuse(body)
    prompt = await run_in_threadpool(_encode, model, body)
    top = body.top_logprobs or 0
    generation = Generation(serving, model, engine_requests(model, [prompt], body, asked, None, top), strip=True)
    answer = _Answer(body, model, generation)
    if body.stream:
        return EventStream(answer.events(), generation.cancel)
    whole = await unless_gone(request, answer.whole())
    return await run_in_threadpool(lambda: JSONResponse(whole.model_dump()))


def _refuse(body: ChatRequest) -> None:
    if field := body.unsupported():
        raise bad_request(f"{field} is not supported by this server; leave it out", field, "unsupported_parameter")
    if body.top_logprobs and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")


def _encode(model: LanguageModel, body: ChatRequest) -> list[int]:
    messages = [message.plain() for message in body.messages]
    model.refuse_endless(*(message["content"] for message in messages))
    try:
        return encode_prompt(model.tokenizer, messages)
    except ValueError as error:
        raise bad_request(f"messages: {str(error).removeprefix('prompt: ')}", "messages") from None


class _Answer:
    """The same generation in OpenAI's two shapes."""

    def __init__(self, body: ChatRequest, model: LanguageModel, generation: Generation) -> None:
        self.body, self.model, self.generation = body, model, generation
        self.head = head("chatcmpl", model)

    async def whole(self) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=piece.choice,
                message=AnswerMessage(content=piece.text),
                logprobs=self._logprobs(piece),
                finish_reason=piece.finish,
            )
            for piece in await self.generation.whole()
        ]
        return ChatCompletion(**self.head, choices=choices, usage=self.generation.usage)

    async def events(self) -> AsyncIterator[ChatChunk]:
        """Per choice: its role, its text, its end; then, if asked for, the usage."""
        for choice in self.generation.choices:
            yield self._chunk(ChunkChoice(index=choice.index, delta=Delta(role="assistant", content="")))
        async for batch in self.generation.pieces():
            for piece in batch:
                if piece.text or piece.entries:
                    text, logprobs = Delta(content=piece.text), self._logprobs(piece)
                    yield self._chunk(ChunkChoice(index=piece.choice, delta=text, logprobs=logprobs))
                if piece.finish:
                    yield self._chunk(ChunkChoice(index=piece.choice, delta=Delta(), finish_reason=piece.finish))
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield ChatChunk(**self.head, choices=[], usage=self.generation.usage)

    def _chunk(self, choice: ChunkChoice) -> ChatChunk:
        return ChatChunk(**self.head, choices=[choice])

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        if not self.body.logprobs:
            return None
        return chat_logprobs(self.model.vocabulary, piece.entries, self.body.top_logprobs or 0)
