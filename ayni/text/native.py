"""The two dialogue formats written out by hand, as (ids, whether the assistant wrote them) in order.

Prompt and answer are encoded apart, so that a prompt's ids are always the beginning of the whole dialogue's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ayni.text.tokenizer import Tokenizer

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}
Stretches = list[tuple[list[int], bool]]

MARKERS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


def llama2(tok: Tokenizer, messages: list[Message]) -> Stretches:
    """The Llama 2 format: compact where the tokenizer has ids for the markers, else Meta's chat_completion to the id."""
    markers = [number for marker in MARKERS if (number := tok.piece_id(marker)) is not None]
    if len(markers) == len(MARKERS):
        return _compact(tok, messages, *markers)
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    out: Stretches = []
    for message in messages:
        if message["role"] == "user":
            out.append(([tok.bos_id, *_user(tok, system, message["content"])], False))
            system = None
        elif message["role"] == "assistant":
            out.append(([*_without_markers(tok, message["content"].strip() + " "), tok.eos_id], True))
    return out


def chatml(tok: Tokenizer, messages: list[Message]) -> Stretches:
    start, end = tok.piece_id("<|im_start|>"), tok.piece_id("<|im_end|>")
    if start is None or end is None:
        raise ValueError("the tokenizer lacks <|im_start|> or <|im_end|> as special tokens; ChatML needs both")
    newline = tok.encode("\n")
    out: Stretches = []
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


def _compact(tok: Tokenizer, messages: list[Message], inst: int, end_inst: int, sys: int, end_sys: int) -> Stretches:
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    out: Stretches = []
    for message in messages:
        content = tok.encode(message["content"].strip())
        if message["role"] == "user":
            preamble = [sys, *tok.encode(system), end_sys] if system else []
            out.append(([tok.bos_id, inst, *preamble, *content, end_inst], False))
            system = ""
        elif message["role"] == "assistant":
            out.append(([*content, tok.eos_id], True))
    return out


def _user(tok: Tokenizer, system: str | None, user: str) -> list[int]:
    """`[INST] ... [/INST]` as Meta's code spells it: stripped is what stands between, with the system message in front."""
    user = user.strip() if system is None else user.rstrip()
    end_sys = "\n<</SYS>>\n\n" if user else "\n<</SYS>>"
    if not any(marker in (system or "") + user for marker in MARKERS):
        preamble = "" if system is None else f"<<SYS>>\n{system}{end_sys}"
        return tok.encode(f"[INST] {preamble}{user} [/INST]")
    if system is None:
        ids = tok.encode("[INST]") + _without_markers(tok, " " + user, first=False)
    else:
        ids = tok.encode("[INST] <<SYS>>\n") + _without_markers(tok, system, first=False)
        ids += tok.continued(end_sys) + _without_markers(tok, user, first=False)
    return ids + tok.continued(" [/INST]")


def _without_markers(tok: Tokenizer, text: str, first: bool = True) -> list[int]:
    """Typed markers must not read as real ones (TRAPS 13; Meta's code refuses them): they are spelt in byte pieces,
    which decode to the same text."""
    ids: list[int] = []
    for index, part in enumerate(re.split(f"({'|'.join(map(re.escape, MARKERS))})", text)):
        if index % 2:
            spelt = tok.spelt(part)
            if spelt == tok.continued(part):
                raise ValueError(f"a message contains {part!r}, which this tokenizer cannot tell from the real marker")
            ids += spelt
        elif part:
            ids += tok.encode(part) if first and index == 0 else tok.continued(part)
    return ids
