"""Dialogues in the format of the chat template that a checkpoint brings, and whether it is one we write by hand anyway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from ayni.text import native
from ayni.text.native import MARKERS, Message, Stretches
from ayni.text.template import CHATML_TEMPLATE, LLAMA2_TEMPLATE, META_TEMPLATE, render

if TYPE_CHECKING:
    from ayni.text.tokenizer import Tokenizer

Dialogue = Literal["llama2", "chatml", "template"]
# Markers that a template spells out in ordinary text: [INST], <|user|>, <start_of_turn>, <<SYS>>.
WRITTEN_MARKER = re.compile(r"<\|\w+\|>|\[/?[A-Z_]+\]|<\w+_of_\w+>|<</?[A-Z]+>>")
PRIVATE = range(0x10FFFD, 0x100000, -1)  # code points that mean nothing to anybody
PROBES: list[list[Message]] = [
    [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "Good day."},
    ],
    [
        {"role": "system", "content": " Be\nbrief. "},
        {"role": "user", "content": " One and\n\n two? "},
        {"role": "assistant", "content": " Three. "},
        {"role": "user", "content": "\tAnd 4?\n"},
        {"role": "assistant", "content": "Five."},
    ],
    # What templates are known to treat apart: thoughts in earlier answers, an empty system message, a long dialogue.
    [{"role": "system", "content": ""}]
    + [
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "<think>\nWhy?\n</think>\n\nThen six."},
    ]
    * 4,
]


class Typed(NamedTuple):
    """Two private characters that stand around markers typed in messages, and those markers."""

    before: str
    after: str
    markers: tuple[str, ...]


NOTHING_TYPED = Typed("", "", ())


def dialogue_of(tok: Tokenizer) -> Dialogue:
    """The format that a tokenizer's dialogues are in: a native one where its template writes the same ids.

    Our own templates are known by sight; Jinja is loaded only for others.
    """
    has_chatml = {"<|im_start|>", "<|im_end|>"} <= set(tok.specials)
    has_markers = set(MARKERS) <= set(tok.specials)
    if tok.template is None:
        return "chatml" if "<|im_start|>" in tok.specials else "llama2"
    if tok.template == CHATML_TEMPLATE and has_chatml and not tok.starts_with_space:
        return "chatml"
    if tok.template == (LLAMA2_TEMPLATE if has_markers else META_TEMPLATE):
        return "llama2"
    dialogues = [messages[:end] for messages in PROBES for end in range(len(messages), 0, -1)]
    try:
        same = all(_is_native(tok, dialogue, has_chatml) for dialogue in dialogues if dialogue[-1]["role"] != "system")
    except ValueError:
        return "template"
    return ("chatml" if has_chatml else "llama2") if same else "template"


def _is_native(tok: Tokenizer, messages: list[Message], is_chatml: bool) -> bool:
    """Whether the template writes what chatml or llama2 writes. Meta's code encodes every exchange as a text of its own,
    with SentencePiece's space in front, which newer LlamaTokenizers leave out behind BOS: that makes no other format."""
    assert tok.template is not None
    is_open = messages[-1]["role"] != "assistant"
    text = render(tok.template, messages, tok.named, add_generation_prompt=is_open)
    ids = encode_sections(tok, [text], space_after_specials=tok.space_after_specials or not is_chatml)[0]
    stretches = (native.chatml if is_chatml else native.llama2)(tok, messages)
    return ids == [number for stretch, _ in stretches for number in stretch]


def turn_end(tok: Tokenizer) -> int | None:
    """The special token that the template puts behind an answer."""
    try:
        stretches = templated(tok, PROBES[0])
    except ValueError:
        return None
    last = next((ids[-1] for ids, is_answer in reversed(stretches) if is_answer and ids), None)
    return last if last in tok.specials.values() else None


def templated(tok: Tokenizer, messages: list[Message], strict: Literal["none", "last", "all"] = "none") -> Stretches:
    """The dialogue as its template writes it, opened for an answer if it ends with the user.

    What the user types stays text. An answer's stretch runs to the special token that ends it. Templates may write earlier
    turns differently once the dialogue goes on (dropping thoughts, say); then those answers cannot be told apart, which
    is a ValueError for the answers that `strict` names.
    """
    assert tok.template is not None
    typed = _typed(tok, messages)
    hidden = [_hidden(tok, message, typed) for message in messages]
    template = tok.template

    def text(count: int, is_open: bool) -> str:
        return render(template, hidden[:count], tok.named, add_generation_prompt=is_open)

    whole = text(len(messages), messages[-1]["role"] != "assistant")
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    sections: list[tuple[str, bool]] = []
    done = 0
    for number in answers:
        prompt = text(number, True)
        chat, content = text(number + 1, False), hidden[number]["content"]
        end = _end_of_answer(tok, whole, len(prompt), chat, content, typed) if whole.startswith(prompt) else None
        if end is None or len(prompt) < done:
            if strict == "all" or (strict == "last" and number == answers[-1]):
                raise ValueError(
                    f"the chat template ({tok.template_file}) writes message {number + 1}, or what stands before it, differently "
                    "when the answer is asked for, given, and gone beyond; train with another template (--chat-template)"
                )
            continue
        sections += [(whole[done : len(prompt)], False), (whole[len(prompt) : end], True)]
        done = end
    sections.append((whole[done:], False))
    encoded = encode_sections(tok, [section for section, _ in sections], typed)
    return [(ids, is_answer) for ids, (_, is_answer) in zip(encoded, sections)]


def _end_of_answer(tok: Tokenizer, whole: str, start: int, chat: str, content: str, typed: Typed) -> int | None:
    """Where the answer that begins at `start` ends: behind the first special token after its content, or where the next
    message begins. `chat` is the dialogue up to this answer; None if the whole one does not repeat it."""
    found = chat.find(content.strip(), start)
    position = start if found < 0 else found + len(content.strip())
    ends = (match.end() for match in _pattern(tok, typed).finditer(chat, position) if match["special"])
    same = next((i for i, (a, b) in enumerate(zip(whole, chat)) if a != b), min(len(whole), len(chat)))
    end = next(ends, max(same, position))
    return end if end <= same else None


def encode_sections(
    tok: Tokenizer, sections: list[str], typed: Typed = NOTHING_TYPED, space_after_specials: bool | None = None
) -> list[list[int]]:
    """Ids of a rendered text that has been cut in sections: special tokens count, unless they stand between `typed`'s two
    characters. Other typed markers are spelt out, so that they do not read as the template's."""
    spaced = tok.space_after_specials if space_after_specials is None else space_after_specials
    out: list[list[int]] = []
    behind: Literal["nothing", "special", "text"] = "nothing"
    for section in sections:
        ids: list[int] = []
        for kind, run in _runs(tok, section, typed):
            if kind == "special":
                ids.append(tok.specials[run])
            elif kind == "typed":
                ids += tok.spelt(run)
            elif behind == "nothing" or (behind == "special" and spaced):
                ids += tok.encode(run)
            else:
                ids += tok.continued(run)
            behind = "special" if kind == "special" else "text"
        out.append(ids)
    return out


def _runs(tok: Tokenizer, section: str, typed: Typed) -> Iterator[tuple[Literal["text", "special", "typed"], str]]:
    plain, position = "", 0
    for match in _pattern(tok, typed).finditer(section):
        plain += section[position : match.start()]
        position = match.end()
        if match["typed"] in tok.specials:
            plain += match["typed"]  # `encode` never reads a special token
            continue
        if match["typed"] is None and match["special"] is None:
            continue  # one of the two characters alone: the template took the message apart
        if plain:
            yield "text", plain
        plain = ""
        if match["typed"]:
            yield "typed", match["typed"]
        else:
            special = match["special"]
            yield "special", special if special in tok.specials else special.strip()
    if plain + section[position:]:
        yield "text", plain + section[position:]


def _pattern(tok: Tokenizer, typed: Typed) -> re.Pattern[str]:
    return _compiled(tuple(tok.special_patterns), typed)


@lru_cache(maxsize=16)
def _compiled(specials: tuple[str, ...], typed: Typed) -> re.Pattern[str]:
    never = "(?!)"
    if typed.markers:
        inner = "|".join(map(re.escape, typed.markers))
        wrapped = f"{typed.before}(?P<typed>{inner}){typed.after}|[{typed.before}{typed.after}]"
    else:
        wrapped = f"(?P<typed>{never})"
    return re.compile(f"{wrapped}|(?P<special>{'|'.join(specials) or never})")


def _typed(tok: Tokenizer, messages: list[Message]) -> Typed:
    """The markers that occur in these messages, and two characters that do not."""
    content = "\0".join(message["content"] for message in messages)
    known = [*tok.specials, *_spelt_markers(tok, tok.template or "")]
    markers = tuple(sorted((marker for marker in known if marker in content), key=len, reverse=True))
    if not markers:
        return NOTHING_TYPED
    free = (chr(number) for number in PRIVATE if chr(number) not in content)
    before, after = next(free, ""), next(free, "")
    if not after:
        raise ValueError("a message uses every private character there is; leave one out")
    return Typed(before, after, markers)


def _spelt_markers(tok: Tokenizer, template: str) -> set[str]:
    """What the template writes as a marker though it is not a special token."""
    named = {piece for piece in tok.added if piece in tok.named.values() or WRITTEN_MARKER.fullmatch(piece)}
    written = set(WRITTEN_MARKER.findall(template)) | {piece for piece in tok.added if piece in template} | named
    return written - set(tok.specials)


def _hidden(tok: Tokenizer, message: Message, typed: Typed) -> Message:
    """The message with its typed markers between the two characters. An answer's own non-special tokens (`<think>`) count."""
    markers = [m for m in typed.markers if message["role"] != "assistant" or m not in tok.added]
    if not markers:
        return message
    pattern = "|".join(map(re.escape, markers))
    content = re.sub(pattern, lambda match: typed.before + match[0] + typed.after, message["content"])
    return message | {"content": content}
