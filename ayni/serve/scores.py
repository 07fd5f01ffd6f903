"""/v1/score: what a reward model gives an answer, read at its last token."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from ayni.serve.errors import bad_request
from ayni.serve.generation import usage
from ayni.serve.models import ServedReward
from ayni.serve.protocol import ScoreRequest
from ayni.serve.responses import ScoreEntry, Scores
from ayni.serve.serving import ERRORS, Serving, serving, unless_gone
from ayni.text.dialogue import Message, encode_chat, encode_prompt

router = APIRouter()
Dialogue = tuple[list[int], list[int]]  # ids of the prompt and of the answer


@router.post("/v1/score", responses=ERRORS)
async def score(body: ScoreRequest, request: Request, serving: Annotated[Serving, Depends(serving)]) -> Scores:
    """Scores of whole dialogues, the likelihood term included where the reward model has one."""
    model = serving.catalogue.reward_model(body.model)
    dialogues = await run_in_threadpool(_encode, model, _dialogues(body))
    scores = await unless_gone(request, _scores(serving, model, dialogues))
    tokens = sum(len(prompt) + len(answer) for prompt, answer in dialogues)
    serving.metrics.prompt_tokens.labels(model.id).inc(tokens)
    return Scores(
        id=f"score-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=model.id,
        data=[ScoreEntry(index=index, score=value) for index, value in enumerate(scores)],
        usage=usage(tokens),
    )


async def _scores(serving: Serving, model: ServedReward, dialogues: list[Dialogue]) -> list[float]:
    """One by one, so that a score does not depend on its neighbours and steps of other requests find their turn."""

    def of(prompt: list[int], answer: list[int]) -> float:
        return float(model.model.score([prompt], [answer], len(prompt) + len(answer)))

    return await serving.call(*(partial(of, *pair) for pair in dialogues))


def _dialogues(body: ScoreRequest) -> list[list[Message]]:
    given = [body.messages is not None, body.input is not None, body.text_1 is not None and body.text_2 is not None]
    if sum(given) != 1 or (body.text_1 is None) != (body.text_2 is None):
        raise bad_request("send messages, or input (several of them), or text_1 with text_2", "messages")
    if body.messages is not None:
        return [[message.plain() for message in body.messages]]
    if body.input is not None:
        return [[message.plain() for message in messages] for messages in body.input]
    prompts, answers = _list(body.text_1), _list(body.text_2)
    if len(prompts) == 1:
        prompts = prompts * len(answers)
    if len(prompts) != len(answers):
        raise bad_request(f"text_1 has {len(prompts)} prompts and text_2 {len(answers)} answers; give pairs", "text_2")
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        for prompt, answer in zip(prompts, answers)
    ]


def _list(text: str | list[str] | None) -> list[str]:
    assert text is not None
    return [text] if isinstance(text, str) else text


def _encode(model: ServedReward, dialogues: list[list[Message]]) -> list[Dialogue]:
    encoded = []
    for number, messages in enumerate(dialogues):
        model.refuse_endless(*(message["content"] for message in messages))
        try:
            ids = encode_chat(model.tokenizer, messages)[0]
            prompt = encode_prompt(model.tokenizer, messages[:-1])
        except ValueError as error:
            raise bad_request(f"dialogue {number}: {error}", "messages") from None
        if len(ids) > model.max_len:
            message = f"dialogue {number} has {len(ids)} tokens, and this model's context holds {model.max_len}"
            raise bad_request(message, "messages", "context_length_exceeded")
        encoded.append((prompt, ids[len(prompt) :]))
    return encoded
