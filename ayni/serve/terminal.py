"""`ayni chat`: a dialogue in the terminal with one model, or with two side by side, streamed token by token.

Commands begin with a slash; /help lists them. Ctrl-C stops an answer and keeps what has come of it.
"""

from __future__ import annotations

import base64
import contextlib
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ayni.config import ServedType
from ayni.engine.engine import Request
from ayni.serve.models import find_model, open_engine
from ayni.serve.text_stream import TextStream
from ayni.text.dialogue import Message, encode_prompt, stop_ids
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import Tokenizer, load_tokenizer

HELP = """/system TEXT     start anew with this system message   /copy        the last answer, to the clipboard
/temp NUMBER     sampling temperature (0: greedy)       /save FILE   the dialogue as JSONL, a line for each model
/retry           another answer to your last message    /reset       start anew, under the same system message
/edit [N] TEXT   your last or N-th message, reworded:   /help        these lines
                 the dialogue goes on from there        /quit        leave (or Ctrl-D)
Ctrl-C stops the answer: what has come of it stays. ↑ brings back earlier lines."""

SIDE_BY_SIDE = 80  # columns of the terminal from which two answers stand beside each other
WRONG = (ValueError, OSError, RuntimeError)  # RuntimeError: torch, when memory runs out


@dataclass
class Chat:
    """One dialogue with one model."""

    model: Path
    temperature: float = 0.7
    max_new_tokens: int = 200
    seed: int | None = None  # None: another draw every time
    name: str = ""
    dtype: ServedType = "float32"
    messages: list[Message] = field(default_factory=list)
    saved: set[Path] = field(default_factory=set)  # files that this chat wrote, and may write again

    def __post_init__(self) -> None:
        self.name = self.name or self.model.resolve().name
        self.tokenizer: Tokenizer = load_tokenizer(self.model)
        self.engine = open_engine(self.model, self.tokenizer, self.dtype)
        self._random = random.Random(self.seed)

    @property
    def answered(self) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] == "assistant"

    def user_turns(self) -> list[int]:
        return [index for index, message in enumerate(self.messages) if message["role"] == "user"]

    def answer(self) -> Iterator[str]:
        """Streams the answer to the dialogue as it stands; its message grows with every piece, so that stopping keeps it."""
        request = Request(
            prompt=encode_prompt(self.tokenizer, self.messages),
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self._random.getrandbits(32),
            stop_ids=stop_ids(self.tokenizer),
        )
        message = {"role": "assistant", "content": ""}
        text = TextStream(self.tokenizer, strip=True)
        self.messages = [*self.messages, message]
        for token in self.engine.stream(request):
            if token in request.stop_ids:
                break
            if piece := text.push(token):
                message["content"] += piece
                yield piece
        if piece := text.finish():
            message["content"] += piece
            yield piece


Before = dict[str, list[Message]]  # by model name: the dialogue as it was when the user's line came


def talk(chats: Sequence[Chat], lines: TextIO, out: TextIO) -> None:
    """Reads a line, answers, until /quit or the end of input. Mistakes are told, and the dialogue goes on."""
    console = Console(file=out, highlight=False, markup=False, emoji=False)
    names = " and ".join(str(chat.model) for chat in chats)
    _say(console, f"{names}, temperature {chats[0].temperature:g}. /help lists the commands.")
    while (line := _read(lines, console)) is not None and line != "/quit":
        before = {chat.name: chat.messages for chat in chats}
        try:
            if line.startswith("/"):
                asked = _command(chats, line, console)
            else:
                asked = list(chats) if line else []
                for chat in asked:
                    chat.messages = [*chat.messages, {"role": "user", "content": line}]
        except WRONG as error:
            _say(console, f"error: {error}")
        else:
            _answer(asked, before, console)


def _read(lines: TextIO, console: Console) -> str | None:
    """The next line, stripped; None at the end. On a terminal with the history of this chat (↑), kept in memory only."""
    console.print()
    if lines is sys.stdin and lines.isatty():
        try:
            return input("you: ").strip()
        except EOFError:
            console.print()
            return None
    console.print(Text("you: "), end="")
    line = lines.readline()
    if not line:
        console.print()
    return line.strip() if line else None


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


# Answers


def _answer(chats: Sequence[Chat], before: Before, console: Console) -> None:
    if len(chats) > 1 and console.is_terminal and console.width >= SIDE_BY_SIDE:
        _answer_side_by_side(chats, before, console)
        return
    for chat in chats:
        console.print(Text(f"{chat.name}: ", style="bold"), end="")
        ends = _stream([chat], before, lambda piece: console.print(Text(_plain(piece)), end="", soft_wrap=True))
        console.print(Text(ends[chat.name], style="dim"), soft_wrap=True)


def _answer_side_by_side(chats: Sequence[Chat], before: Before, console: Console) -> None:
    """The growing end stays in sight while both write; the whole is printed in the end."""

    def said() -> list[str]:
        """A dialogue that is as it was holds nothing new."""
        new = [chat.answered and chat.messages is not before[chat.name] for chat in chats]
        return [chat.messages[-1]["content"] if is_new else "" for chat, is_new in zip(chats, new)]

    def grown() -> Table:
        return _columns(chats, said(), console, console.height - 2)

    with Live(get_renderable=grown, console=console, transient=True, refresh_per_second=12):
        ends = _stream(chats, before, lambda piece: None)
    console.print(_columns(chats, [text + ends[chat.name] for chat, text in zip(chats, said())], console))


def _stream(chats: Sequence[Chat], before: Before, show: Callable[[str], None]) -> dict[str, str]:
    """A piece of each answer in turn until all are whole; returns how each ended where it did not by itself.

    An answer that was stopped keeps its words. Without a word of it, the dialogue is again what it was before.
    """
    running = {chat.name: chat.answer() for chat in chats}
    ends = dict.fromkeys(running, "")
    try:
        while running:
            for name, answer in list(running.items()):
                try:
                    piece = next(answer, None)
                except WRONG as error:
                    ends[name], piece = f"error: {error}", None
                if piece is None:
                    del running[name]
                else:
                    show(piece)
    except KeyboardInterrupt:
        ends |= dict.fromkeys(running, "stopped")
    for chat in chats:
        if not ends[chat.name]:
            continue
        if chat.answered and chat.messages[-1]["content"]:
            ends[chat.name] = f" [{ends[chat.name]}]"
        else:
            chat.messages = before[chat.name]
            ends[chat.name] = f"[{ends[chat.name]}; the dialogue is as it was]"
    return ends


def _columns(chats: Sequence[Chat], texts: Sequence[str], console: Console, last_lines: int | None = None) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in chats:
        table.add_column(ratio=1)
    table.add_row(*(Text(chat.name, style="bold") for chat in chats))
    width = (console.width - 2 * len(chats)) // len(chats)
    wrapped = [Text(_plain(text)).wrap(console, width) for text in texts]
    table.add_row(*(Text("\n").join(lines[-last_lines:] if last_lines else lines) for lines in wrapped))
    return table


def _plain(text: str) -> str:
    """A model's text may hold control characters; a terminal must not obey them."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


# Commands


def _command(chats: Sequence[Chat], line: str, console: Console) -> list[Chat]:
    """Obeys a slash command; returns the chats that are to answer now."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word == "/system":
        for chat in chats:
            chat.messages = [{"role": "system", "content": rest}] if rest else []
        _say(console, "a new dialogue under that system message" if rest else "a new dialogue")
    elif word == "/reset":
        for chat in chats:
            chat.messages = [message for message in chat.messages if message["role"] == "system"]
        _say(console, "a new dialogue")
    elif word == "/temp":
        temperature = _number(rest)
        for chat in chats:
            chat.temperature = temperature
        _say(console, f"temperature {temperature:g}")
    elif word == "/save":
        _say(console, _save(chats, rest))
    elif word == "/copy":
        _say(console, _copy(chats, console))
    elif word == "/retry":
        return _retry(chats)
    elif word == "/edit":
        return _edit(chats, rest)
    else:
        _say(console, HELP if word == "/help" else f"there is no command {word}\n{HELP}")
    return []


def _retry(chats: Sequence[Chat]) -> list[Chat]:
    again = [chat for chat in chats if chat.answered]
    if not again:
        raise ValueError("there is no answer to try again")
    for chat in again:
        chat.messages = chat.messages[:-1]
    return again


def _edit(chats: Sequence[Chat], rest: str) -> list[Chat]:
    """`[N] TEXT`: a number in front is always N."""
    first, _, others = rest.partition(" ")
    number, text = (int(first), others.strip()) if first.isdecimal() else (None, rest)
    if not text:
        raise ValueError("/edit needs the new text, as in /edit Who is she? or /edit 1 Who is she?")
    most = max(len(chat.user_turns()) for chat in chats)
    place = most if number is None else number
    if not 1 <= place <= most:
        if not most:
            raise ValueError("there is no message of yours to edit yet")
        raise ValueError(
            f"/edit {first}: your messages are 1 to {most}; if the text begins with a number, put N before it"
        )
    again = [chat for chat in chats if len(chat.user_turns()) >= place]
    for chat in again:
        chat.messages = [*chat.messages[: chat.user_turns()[place - 1]], {"role": "user", "content": text}]
    return again


def _save(chats: Sequence[Chat], name: str) -> str:
    if not name:
        raise ValueError("/save needs a file name")
    rows = [{"model": chat.name, "messages": chat.messages} for chat in chats if chat.answered]
    if not rows:
        raise ValueError("there is no answer to save yet")
    path = Path(name).expanduser().absolute()
    if path.exists() and path not in chats[0].saved:
        raise ValueError(f"{name} exists already; choose another name")
    write_jsonl(path, rows)
    chats[0].saved.add(path)
    return f"saved: {name}"


def _copy(chats: Sequence[Chat], console: Console) -> str:
    """By the escape sequence OSC 52, which the terminal carries out, over ssh as well."""
    answers = [chat for chat in chats if chat.answered]
    if not answers:
        raise ValueError("there is no answer to copy yet")
    if not console.is_terminal:
        raise ValueError("/copy needs a terminal; /save FILE writes the dialogue")
    texts = [chat.messages[-1]["content"] for chat in answers]
    whole = texts[0] if len(chats) == 1 else "\n\n".join(f"{chat.name}: {text}" for chat, text in zip(answers, texts))
    console.file.write(f"\033]52;c;{base64.b64encode(whole.encode()).decode()}\a")
    return "copied, if your terminal allows it (OSC 52)"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"/temp {text!r}: expected a number, as in /temp 0.7") from None
    if not 0 <= value <= 10:
        raise ValueError(f"/temp {text}: expected a number from 0 to 10")
    return value


# The command


def _names(paths: Sequence[Path]) -> list[str]:
    """Directory names, with the run's name in front or a number behind where two are alike."""
    resolved = [path.resolve() for path in paths]
    for names in ([path.name for path in resolved], [f"{path.parent.name}/{path.name}" for path in resolved]):
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} {number}" for number, path in enumerate(resolved, 1)]


def chat_in_terminal(
    paths: list[Path],
    system: str | None,
    temperature: float,
    max_new_tokens: int,
    seed: int | None,
    dtype: ServedType = "float32",
) -> None:
    """One model, or two that answer the same messages."""
    models = [find_model(path) for path in paths]
    chats = [Chat(model, temperature, max_new_tokens, seed, name, dtype) for model, name in zip(models, _names(models))]
    if system:
        for chat in chats:
            chat.messages = [{"role": "system", "content": system}]
    if sys.stdin.isatty():
        _edit_lines()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        talk(chats, sys.stdin, sys.stdout)
    except KeyboardInterrupt:
        print()


def _edit_lines() -> None:
    """Gives `input` line editing and history, where Python was built with it."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # its import is its effect
