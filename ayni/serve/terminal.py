"""`ayni chat`: a dialogue in the terminal, streamed token by token. Commands begin with a slash; /help lists them."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from ayni.artifacts import read_json
from ayni.engine.engine import Engine, Request
from ayni.model.checkpoint import load_model
from ayni.text.dialogue import Message, encode_prompt, stop_ids
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import Tokenizer, load_tokenizer

HELP = """/system TEXT   start anew with this system message     /retry   another answer to your last message
/temp NUMBER   sampling temperature (0: greedy)        /reset   start anew
/save FILE     the dialogue as JSONL                   /quit    leave (or Ctrl-D)"""


@dataclass
class Chat:
    """One dialogue with one model."""

    model: Path
    temperature: float = 0.7
    max_new_tokens: int = 200
    seed: int | None = None  # None: another draw every time
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(self.model)
        self.engine = Engine(load_model(self.model), self.tokenizer)
        self._random = random.Random(self.seed)

    def answer(self) -> Iterator[str]:
        """Streams the answer to the dialogue as it stands, in pieces of text, and adds it to the dialogue."""
        stops = stop_ids(self.tokenizer)
        prompt = encode_prompt(self.tokenizer, self.messages)
        request = Request(
            prompt=prompt,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self._random.getrandbits(32),
            stop_ids=stops,
        )
        ids: list[int] = []
        shown = ""
        for token in self.engine.stream(request):
            if token in stops:
                break
            ids.append(token)
            text = self.tokenizer.decode(ids).lstrip()
            if not text.endswith("\ufffd"):  # a character may need several byte tokens
                yield text[len(shown) :]
                shown = text
        self.messages.append({"role": "assistant", "content": shown.strip()})


def find_model(path: Path) -> Path:
    """A model directory as it is, or the latest model of a run directory."""
    if (path / "config.json").is_file():
        return path
    if (path / "results.json").is_file():
        return path / read_json(path / "results.json")["latest"]
    raise ValueError(f"{path}: neither a model directory (config.json) nor a finished run (results.json)")


def talk(chat: Chat, lines: TextIO, out: TextIO) -> None:
    """Reads a line, answers, until /quit or the end of input."""
    print(f"{chat.model}, temperature {chat.temperature}. /help lists the commands.", file=out)
    while True:
        print("\nyou: ", end="", flush=True, file=out)
        line = lines.readline()
        if not line or line.strip() == "/quit":
            print(file=out)
            return
        line = line.strip()
        if not line:
            continue
        try:
            if line.startswith("/"):
                if not _command(chat, line, out):
                    continue
            else:
                chat.messages.append({"role": "user", "content": line})
            print("ayni: ", end="", flush=True, file=out)
            try:
                for piece in chat.answer():
                    print(_plain(piece), end="", flush=True, file=out)
            except KeyboardInterrupt:  # Ctrl-C stops the answer, not the chat
                chat.messages.pop()
                print(" [stopped; your message was taken back]", end="", file=out)
            print(file=out)
        except ValueError as error:
            if chat.messages and chat.messages[-1]["role"] == "user":
                chat.messages.pop()
            print(f"\nerror: {error}", file=out)


def _command(chat: Chat, line: str, out: TextIO) -> bool:
    """Obeys a slash command; True if an answer is wanted now."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word == "/system":
        chat.messages = [{"role": "system", "content": rest}] if rest else []
        print("a new dialogue under that system message" if rest else "a new dialogue", file=out)
    elif word == "/reset":
        chat.messages = [message for message in chat.messages if message["role"] == "system"]
        print("a new dialogue", file=out)
    elif word == "/temp":
        chat.temperature = _number(rest)
        print(f"temperature {chat.temperature}", file=out)
    elif word == "/save":
        if not rest:
            raise ValueError("/save needs a file name")
        write_jsonl(Path(rest), [{"messages": chat.messages}])
        print(f"saved: {rest}", file=out)
    elif word == "/retry":
        if not chat.messages or chat.messages[-1]["role"] != "assistant":
            raise ValueError("there is no answer to try again")
        chat.messages.pop()
        return True
    else:
        print(HELP, file=out)
    return False


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"/temp {text!r}: expected a number, as in /temp 0.7") from None
    if not 0 <= value <= 10:
        raise ValueError(f"/temp {text}: expected a number from 0 to 10")
    return value


def _plain(text: str) -> str:
    """A model's text may hold control characters; a terminal must not obey them."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def chat_in_terminal(path: Path, system: str | None, temperature: float, max_new_tokens: int, seed: int | None) -> None:
    chat = Chat(find_model(path), temperature, max_new_tokens, seed)
    if system:
        chat.messages = [{"role": "system", "content": system}]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        talk(chat, sys.stdin, sys.stdout)
    except KeyboardInterrupt:
        print()
