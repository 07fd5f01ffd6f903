"""Dialogue formats: messages to ids, and which of those ids are the model's own (paper 3.1; format: Meta's released code).

Llama 2, one exchange:  <s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {answer} </s>
where the tokenizer has the markers as single ids, without the white space between them and the (stripped) contents.
ChatML:  <|im_start|>{role}\\n{content}<|im_end|>\\n  for every message.
Any other format is the chat template's that the checkpoint brings.
"""

from __future__ import annotations

import json
from typing import Literal

from ayni.text.native import Message, Stretches, chatml, llama2
from ayni.text.templated import templated, turn_end
from ayni.text.tokenizer import Tokenizer

COMPLETION_STOP = "\n"
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def check_messages(messages: list[Message], where: str, last: Literal["user", "assistant"] | None = None) -> None:
    """ValueError unless: an optional system message, then user and assistant in turn; `last` names the closing role."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where}: expected a non-empty list of messages, found {str(messages)[:60]!r}")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(
                f'{where}: message {number} must be {{"role": ..., "content": text}}, found {str(message)[:60]!r}'
            )
    roles = [message["role"] for message in messages]
    start = 1 if roles[0] == "system" else 0
    if len(roles) == start:
        raise ValueError(f"{where}: only a system message; a user's message must follow")
    for number, role in enumerate(roles[start:], start + 1):
        wanted = "user" if (number - start) % 2 else "assistant"
        if role == wanted:
            continue
        if number > 1 and role == roles[number - 2]:
            raise ValueError(f"{where}: messages {number - 1} and {number} are both by the {role}; join or drop one")
        raise ValueError(
            f"{where}: message {number} is by {role!r}, expected {wanted!r} (user and assistant alternate)"
        )
    if last is not None and roles[-1] != last:
        raise ValueError(f"{where}: the last message is by the {roles[-1]}, expected the {last}")


def encode_prompt(tok: Tokenizer, messages: list[Message]) -> list[int]:
    """Ids of a dialogue that ends with the user, up to and including the separator: ready to generate the answer."""
    check_messages(messages, "prompt", last="user")
    return [number for stretch, _ in _stretches(tok, messages) for number in stretch]


def encode_chat(
    tok: Tokenizer, messages: list[Message], answers: Literal["all", "last"] = "all"
) -> tuple[list[int], list[bool]]:
    """Ids of a dialogue that ends with an answer, and for each id whether the assistant wrote it, EOS included (TRAPS 10).

    `answers="last"` marks the last answer only, as Ghost Attention's loss does (paper 3.3).
    """
    check_messages(messages, "chat", last="assistant")
    stretches = _stretches(tok, messages, answers)
    final = max(index for index, (_, is_answer) in enumerate(stretches) if is_answer)
    ids: list[int] = []
    marks: list[bool] = []
    for index, (stretch, is_answer) in enumerate(stretches):
        ids += stretch
        marks += [is_answer and (answers == "all" or index == final)] * len(stretch)
    return ids, marks


def completion_prompt(tok: Tokenizer, messages: list[Message]) -> list[int]:
    """A base model's prompt: "Question: ...\\nAnswer:" (its answer ends at COMPLETION_STOP); system messages stand in front."""
    check_messages(messages, "prompt", last="user")
    label = {"system": "", "user": "Question: ", "assistant": "Answer: "}
    lines = [label[message["role"]] + " ".join(message["content"].split()) for message in messages]
    return [tok.document_start, *tok.encode("\n".join([*lines, "Answer:"]))]


def stop_ids(tok: Tokenizer) -> tuple[int, ...]:
    """Ids that end an answer: EOS, the ends of a turn that the tokenizer or its template knows, and what generation_config.json names."""
    known = [tok.piece_id(piece) for piece in TURN_ENDS]
    if "<|im_start|>" in tok.specials:
        known.append(tok.piece_id("<|endoftext|>"))
    if tok.dialogue == "template":
        known.append(turn_end(tok))
    return tuple(dict.fromkeys([tok.eos_id, *(n for n in known if n is not None), *tok.generation_eos]))


def with_template(files: dict[str, bytes], template: str) -> dict[str, bytes]:
    """A tokenizer's files with this chat template in place of theirs."""
    config = json.loads(files.get("tokenizer_config.json", b"{}")) | {"chat_template": template}
    others = {name: data for name, data in files.items() if name != "chat_template.jinja"}
    return others | {"tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode()}


def _stretches(tok: Tokenizer, messages: list[Message], strict: Literal["none", "last", "all"] = "none") -> Stretches:
    """The dialogue as (ids, written by the assistant) in order; a prompt's ids are the beginning of the whole dialogue's."""
    if tok.dialogue == "template":
        return templated(tok, messages, strict)
    return chatml(tok, messages) if tok.dialogue == "chatml" else llama2(tok, messages)
