"""Dialogue formats: messages to ids, and which of those ids are the model's own (paper 3.1; format: Meta's released code).

Llama 2, one exchange:  <s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {answer} </s>
where the tokenizer has the markers as single ids, without the white space between them and the (stripped) contents.
ChatML:  <|im_start|>{role}\\n{content}<|im_end|>\\n  for every message.
"""

from __future__ import annotations

import re
from typing import Literal

from ayni.text.tokenizer import Tokenizer

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}

MARKERS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
COMPLETION_STOP = "\n"


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
    stretches = _stretches(tok, messages)
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
    start = tok.piece_id("<|endoftext|>") if tok.dialogue == "chatml" else tok.bos_id
    return [tok.bos_id if start is None else start, *tok.encode("\n".join([*lines, "Answer:"]))]


def stop_ids(tok: Tokenizer) -> tuple[int, ...]:
    """Ids that end an answer."""
    also = [tok.piece_id(piece) for piece in ("<|im_end|>", "<|endoftext|>")] if tok.dialogue == "chatml" else []
    return tuple(dict.fromkeys([tok.eos_id, *(number for number in also if number is not None)]))


def _stretches(tok: Tokenizer, messages: list[Message]) -> list[tuple[list[int], bool]]:
    """The dialogue as (ids, written by the assistant) in order. Prompt and answer are encoded apart, so that a prompt's
    ids are always the beginning of the whole dialogue's."""
    return _chatml(tok, messages) if tok.dialogue == "chatml" else _llama2(tok, messages)


def _llama2(tok: Tokenizer, messages: list[Message]) -> list[tuple[list[int], bool]]:
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    markers = [tok.piece_id(marker) for marker in MARKERS]
    out = []
    for message in messages:
        content = message["content"].strip()
        if message["role"] == "user":
            compact = [number for number in markers if number is not None]
            if len(compact) == len(MARKERS):
                inst, end_inst, sys, end_sys = compact
                preamble = [sys, *tok.encode(system), end_sys] if system else []
                out.append(([tok.bos_id, inst, *preamble, *tok.encode(content), end_inst], False))
            else:
                out.append(([tok.bos_id, *_plain_user(tok, system, content)], False))
            system = ""
        elif message["role"] == "assistant":
            text = content if None not in markers else content + " "
            out.append(([*_without_markers(tok, text), tok.eos_id], True))
    return out


def _chatml(tok: Tokenizer, messages: list[Message]) -> list[tuple[list[int], bool]]:
    start, end = tok.piece_id("<|im_start|>"), tok.piece_id("<|im_end|>")
    if start is None or end is None:
        raise ValueError("the tokenizer lacks <|im_start|> or <|im_end|> as special tokens; ChatML needs both")
    newline = tok.encode("\n")
    out = []
    for message in messages:
        if message["role"] == "assistant":
            out += [
                ([start, *tok.encode("assistant\n")], False),
                ([*tok.encode(message["content"]), end], True),
                (newline, False),
            ]
        else:
            out.append(([start, *tok.encode(f"{message['role']}\n{message['content']}"), end, *newline], False))
    if messages[-1]["role"] != "assistant":
        out.append(([start, *tok.encode("assistant\n")], False))
    return out


def _plain_user(tok: Tokenizer, system: str, user: str) -> list[int]:
    """`[INST] ... [/INST]` as Meta's code spells it, for tokenizers that have no ids for the markers."""
    if not any(marker in system + user for marker in MARKERS):
        preamble = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
        return tok.encode(f"[INST] {preamble}{user} [/INST]")
    ids = tok.encode("[INST]" + (" <<SYS>>\n" if system else ""))
    if system:
        ids += _without_markers(tok, system, first=False) + _continued(tok, "\n<</SYS>>\n\n")
        return ids + _without_markers(tok, user, first=False) + _continued(tok, " [/INST]")
    return ids + _without_markers(tok, " " + user, first=False) + _continued(tok, " [/INST]")


def _without_markers(tok: Tokenizer, text: str, first: bool = True) -> list[int]:
    """Typed markers must not read as real ones (TRAPS 13; Meta's code refuses them): they are spelt in byte pieces,
    which decode to the same text."""
    if all(tok.piece_id(marker) is not None for marker in MARKERS):
        return tok.encode(text)
    ids: list[int] = []
    for index, part in enumerate(re.split(f"({'|'.join(map(re.escape, MARKERS))})", text)):
        if index % 2:
            spelt = [tok.piece_id(f"<0x{ord(letter):02X}>") for letter in part]
            if None in spelt or spelt == _continued(tok, part):
                raise ValueError(f"a message contains {part!r}, which this tokenizer cannot tell from the real marker")
            ids += [number for number in spelt if number is not None]
        elif part:
            ids += tok.encode(part) if first and index == 0 else _continued(tok, part)
    return ids


def _continued(tok: Tokenizer, text: str) -> list[int]:
    """Ids of text in mid-sentence: SentencePiece puts a space in front of whatever it encodes, so a newline goes first."""
    newline = tok.encode("\n")
    return tok.encode("\n" + text)[len(newline) :] if newline else tok.encode(text)
