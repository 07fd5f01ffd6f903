"""Prompt rows in, answers out: dialogue format, engine and decoding in one call, for every stage that samples."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ayni.engine.engine import Engine, Request
from ayni.telemetry import ProgressBar
from ayni.text.dialogue import completion_prompt, encode_chat, encode_prompt, stop_ids
from ayni.text.native import Message
from ayni.text.tokenizer import Tokenizer
from ayni.train.allocator import keep_freed_memory


@dataclass(frozen=True)
class Answer:
    prompt_ids: list[int]
    ids: list[int]  # sampled tokens, the end token included if the answer ended
    text: str
    ended: bool  # False: cut by max_new_tokens
    logprobs: list[float]  # of `ids`, under the sampling temperature


def sample_answers(
    engine: Engine,
    tokenizer: Tokenizer,
    rows: Sequence[dict[str, Any]],
    *,
    temperature: float | Sequence[float],
    max_new_tokens: int,
    seed: int,
    n: int = 1,
    style: Literal["chat", "completion"] = "chat",
    prompts: Sequence[list[int]] | None = None,
    bar: ProgressBar | None = None,
) -> list[list[Answer]]:
    """`n` answers to each prompt row ({"id", "messages"}); one temperature for all rows, or one each.

    A row's draw depends on `seed` and its id alone, never on the rows beside it. A base model is asked in completion
    style ("Question: ... Answer:") and stops at the end of the line. `prompts`: the ids of the prompts, where they are
    written otherwise than the dialogue format does; rows then need no `messages`.
    """
    keep_freed_memory()
    temperatures = [temperature] * len(rows) if isinstance(temperature, (int, float)) else list(temperature)
    assert len(temperatures) == len(rows), f"{len(temperatures)} temperatures for {len(rows)} prompts"
    encode = encode_prompt if style == "chat" else completion_prompt
    stops = ("\n",) if style == "completion" else ()
    encoded = [encode(tokenizer, row["messages"]) for row in rows] if prompts is None else prompts
    requests = [
        Request(
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            temperature=row_temperature,
            seed=row_seed(seed, row["id"]),
            n=n,
            stop_ids=stop_ids(tokenizer),
            stop_strings=stops,
        )
        for row, prompt, row_temperature in zip(rows, encoded, temperatures, strict=True)
    ]
    done_before = 0

    def follow(done: int, _total: int, _new_tokens: int) -> None:
        nonlocal done_before
        if bar is not None:
            bar.advance(done - done_before)
        done_before = done

    completions = engine.generate(requests, progress=follow)
    return [
        [
            Answer(
                prompt_ids=request.prompt,
                ids=completion.ids,
                text=_text(tokenizer, completion.ids, stops),
                ended=completion.finish == "stop",
                logprobs=completion.logprobs,
            )
            for completion in samples
        ]
        for request, samples in zip(requests, completions)
    ]


def encoded_answer(tokenizer: Tokenizer, messages: list[Message], text: str, ended: bool = True) -> Answer:
    """A given text as the answer to a prompt, in this tokenizer's ids; log-probabilities are not known, so there are none."""
    prompt_ids = encode_prompt(tokenizer, messages)
    ids, is_answer = encode_chat(tokenizer, [*messages, {"role": "assistant", "content": text}], "last")
    answer_ids = [token for token, ours in zip(ids[len(prompt_ids) :], is_answer[len(prompt_ids) :]) if ours]
    ends = set(stop_ids(tokenizer))
    while not ended and answer_ids and answer_ids[-1] in ends:
        answer_ids.pop()
    return Answer(prompt_ids=prompt_ids, ids=answer_ids, text=text, ended=ended, logprobs=[])


def answers_in(
    tokenizer: Tokenizer, theirs: Tokenizer, rows: Sequence[dict[str, Any]], answers: list[list[Answer]]
) -> list[list[Answer]]:
    """Answers sampled in `theirs` as ids of `tokenizer`: as they are if both write a dialogue alike, else encoded anew."""
    if (tokenizer.hash, tokenizer.template, tokenizer.dialogue) == (theirs.hash, theirs.template, theirs.dialogue):
        return answers
    return [
        [encoded_answer(tokenizer, row["messages"], answer.text, answer.ended) for answer in samples]
        for row, samples in zip(rows, answers)
    ]


def row_seed(seed: int, row_id: str) -> int:
    """A prompt's own seed: a stable hash, unlike Python's, which changes from process to process."""
    return zlib.crc32(f"{seed}:{row_id}".encode())


def _text(tokenizer: Tokenizer, ids: list[int], stops: tuple[str, ...]) -> str:
    ends = set(stop_ids(tokenizer))
    text = tokenizer.decode([token for token in ids if token not in ends])
    for stop in stops:
        text = text.split(stop)[0]
    return text.strip()
