"""Dialogues under an instruction, as Ghost Attention shows them (paper 3.3): before every user turn to sample, before the
first alone to train and to evaluate.

    every turn   [x; u_1] a_1 [x; u_2] a_2 ... [x; u_t]        the answer a_t is sampled
    first turn   [x; u_1] a_1 u_2 a_2 ... u_t a_t              loss on a_t alone

`where: user` joins the instruction x to the user's words, as the paper says. `where: system` makes it the system message,
which in Llama 2's format stands inside the first user turn just as well; before every turn, each exchange is written as
a dialogue of its own with that system message, and they follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ayni.text.dialogue import Message, encode_chat, encode_prompt
from ayni.text.tokenizer import Tokenizer

Where = Literal["system", "user"]
Exchange = tuple[str, str]  # what the user says, what is answered


def in_first_turn(
    instruction: str, where: Where, exchanges: Sequence[Exchange], question: str | None = None
) -> list[Message]:
    """The messages of a dialogue whose first turn alone has the instruction; with `question` it ends with the user."""
    messages = plain(exchanges, question)
    if where == "system":
        return [{"role": "system", "content": instruction}, *messages]
    return [{"role": "user", "content": f"{instruction} {messages[0]['content']}"}, *messages[1:]]


def plain(exchanges: Sequence[Exchange], question: str | None = None) -> list[Message]:
    """The same without an instruction."""
    messages = [
        {"role": role, "content": said} for exchange in exchanges for role, said in zip(("user", "assistant"), exchange)
    ]
    return messages if question is None else [*messages, {"role": "user", "content": question}]


def in_every_turn(
    tok: Tokenizer, instruction: str, where: Where, exchanges: Sequence[Exchange], question: str
) -> list[int]:
    """Ids of a prompt with the instruction in front of every user turn, ready to generate the answer to `question`."""
    if where == "user":
        joined = [(f"{instruction} {said}", answer) for said, answer in exchanges]
        return encode_prompt(tok, plain(joined, f"{instruction} {question}"))
    ids: list[int] = []
    for exchange in exchanges:
        ids += encode_chat(tok, in_first_turn(instruction, "system", [exchange]))[0]
    return ids + encode_prompt(tok, in_first_turn(instruction, "system", [], question))


def training_sample(
    tok: Tokenizer, instruction: str, where: Where, exchanges: Sequence[Exchange], row_len: int
) -> tuple[list[int], list[bool], int]:
    """(ids, loss mask, exchanges kept): loss on the last answer alone, with which the ids end.

    Last exchanges go until it fits `row_len`; nothing is left ([], [], 0) of what has not two that fit.
    """
    for count in range(len(exchanges), 1, -1):
        ids, mask = encode_chat(tok, in_first_turn(instruction, where, exchanges[:count]), "last")
        end = len(mask) - mask[::-1].index(True)
        if end <= row_len:
            return ids[:end], mask[:end], count
    return [], [], 0


def prompt_within(
    tok: Tokenizer,
    instruction: str,
    where: Where,
    exchanges: Sequence[Exchange],
    question: str,
    room: int,
    every: bool = False,
) -> tuple[list[int], int]:
    """(ids of at most `room` tokens, exchanges left out): what does not fit is cut from the second exchange on.

    The first exchange, which has the instruction, always stays; a prompt that is too long even so is returned as it is.
    """
    for dropped in range(max(1, len(exchanges))):
        seen = [*exchanges[:1], *exchanges[1 + dropped :]]
        if every:
            ids = in_every_turn(tok, instruction, where, seen, question)
        else:
            ids = encode_prompt(tok, in_first_turn(instruction, where, seen, question))
        if len(ids) <= room:
            break
    return ids, dropped


def instruction_span(tok: Tokenizer, instruction: str, where: Where, question: str) -> slice:
    """Where the instruction's tokens lie (its markers included), whatever follows the first question."""
    ids = encode_prompt(tok, in_first_turn(instruction, where, [], question))
    bare = encode_prompt(tok, plain([], question))
    start = next((i for i, (a, b) in enumerate(zip(ids, bare)) if a != b), len(bare))
    after = next((i for i, (a, b) in enumerate(zip(reversed(ids), reversed(bare))) if a != b), len(bare))
    return slice(start, max(start + 1, len(ids) - after))
