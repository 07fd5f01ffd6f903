"""The terminal chat, driven through its own input and output."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.config import ModelSettings
from ayni.model.checkpoint import save_model
from ayni.model.transformer import Transformer, init_weights
from ayni.serve.terminal import Chat, chat_in_terminal, talk
from ayni.text.sources import read_chats
from ayni.text.tokenizer import train_tokenizer


class Screen(io.StringIO):
    """A terminal, as far as `isatty` tells."""

    def isatty(self) -> bool:
        return True


def converse(chats: Chat | list[Chat], *lines: str, out: io.StringIO | None = None) -> str:
    out = out or io.StringIO()
    talk(chats if isinstance(chats, list) else [chats], io.StringIO("\n".join(lines) + "\n"), out)
    return out.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random models, `one` and `two`."""
    directory = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["an ant and a bee, a cat and an eel"] * 9, directory / "tokenizer", vocab_size=280)
    for seed, name in enumerate(("one", "two")):
        settings = ModelSettings(
            vocab_size=280, dim=32, n_layers=1, n_heads=2, n_kv_heads=2, ffn_dim=64, max_seq_len=128
        )
        model = Transformer(settings)
        init_weights(model, seed, std=0.25)
        save_model(model, directory / name, tokenizer)
    return [directory / "one", directory / "two"]


@pytest.fixture
def chat(models: list[Path]) -> Chat:
    return Chat(models[0], temperature=0.0, max_new_tokens=12)


@pytest.fixture
def pair(models: list[Path]) -> list[Chat]:
    return [Chat(model, temperature=0.0, max_new_tokens=12) for model in models]


def roles(chat: Chat) -> list[str]:
    return [message["role"] for message in chat.messages]


def interrupted(chat: Chat, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after so many tokens of every answer."""
    stream = chat.engine.stream

    def until(request: object) -> Iterator[int]:
        for number, token in enumerate(stream(request)):  # type: ignore[arg-type]
            if number == after:
                raise KeyboardInterrupt
            yield token

    monkeypatch.setattr(chat.engine, "stream", until)


def test_a_dialogue_with_system_message_retry_and_save(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "dialogue.jsonl"
    shown = converse(chat, "/system Be kind.", "Who are you?", "/retry", f"/save {saved}", "/temp 0.5", "/quit")
    row = read_chats(saved)[0]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["model"] == "one"
    assert shown.count("one: ") == 2
    assert chat.messages == row["messages"]
    assert chat.messages[-1]["content"]
    assert chat.temperature == 0.5


def test_two_models_answer_each_in_its_own_dialogue(pair: list[Chat], tmp_path: Path) -> None:
    saved = tmp_path / "both.jsonl"
    shown = converse(pair, "an ant", "a bee", f"/save {saved}")
    rows = read_chats(saved)
    assert [row["model"] for row in rows] == ["one", "two"]
    assert rows[0]["messages"][0] == rows[1]["messages"][0]
    assert rows[0]["messages"][1] != rows[1]["messages"][1]
    for line, chat in enumerate(pair):
        alone = Chat(chat.model, temperature=0.0, max_new_tokens=12)
        converse(alone, "an ant", "a bee")
        assert rows[line]["messages"] == alone.messages
    assert shown.index("one: ") < shown.index("two: ")


@pytest.mark.parametrize(("columns", "beside"), [(100, True), (60, False)])
def test_a_wide_terminal_shows_two_answers_side_by_side(
    pair: list[Chat], columns: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    shown = converse(pair, "an ant", out=Screen())
    heads = [line for line in shown.splitlines() if "one" in line and "two" in line]
    assert bool([line for line in heads if " and " not in line]) == beside
    assert all(roles(chat) == ["user", "assistant"] for chat in pair)


def test_an_edit_cuts_the_dialogue_there_and_asks_again(chat: Chat) -> None:
    shown = converse(chat, "an ant", "a bee", "/edit a cat")
    assert [message["content"] for message in chat.messages if message["role"] == "user"] == ["an ant", "a cat"]
    converse(chat, "/edit 1 an eel")
    assert roles(chat) == ["user", "assistant"]
    assert chat.messages[0]["content"] == "an eel"
    assert "error" not in shown
    again = converse(chat, "/edit 7 cats", "/edit", "/edit 1")
    assert "your messages are 1 to 1" in again
    assert again.count("/edit needs the new text") == 2
    assert chat.messages[0]["content"] == "an eel"


def test_a_stopped_answer_keeps_its_words(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converse(chat, "an ant", "/reset")
    answer = whole.split("one: ")[1].split("\n\nyou")[0]
    interrupted(chat, 6, monkeypatch)
    shown = converse(chat, "an ant")
    assert "[stopped]" in shown
    kept = chat.messages[-1]["content"]
    assert kept
    assert answer.startswith(kept)
    assert len(kept) < len(answer)


def test_stopped_before_the_first_word_the_dialogue_is_as_it_was(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    converse(chat, "an ant")
    before = list(chat.messages)
    interrupted(chat, 0, monkeypatch)
    shown = converse(chat, "a bee", "/retry", "/edit 1 a cat")
    assert shown.count("the dialogue is as it was") == 3
    assert chat.messages == before


def test_ctrl_c_stops_both_columns(pair: list[Chat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    interrupted(pair[0], 6, monkeypatch)
    shown = converse(pair, "an ant", out=Screen())
    assert shown.count("[stopped]") == 2
    assert all(roles(chat) == ["user", "assistant"] for chat in pair)


def test_mistakes_leave_the_dialogue_as_it_was(chat: Chat, tmp_path: Path) -> None:
    shown = converse(chat, "/retry", "/temp warm", "/unknown", "/copy", "/save", "/edit x", "word " * 400)
    assert "there is no answer to try again" in shown
    assert "expected a number" in shown
    assert "there is no command /unknown" in shown
    assert "/system TEXT" in shown
    assert "no answer to copy" in shown
    assert "/save needs a file name" in shown
    assert "no message of yours to edit" in shown
    assert "the context holds 128" in shown
    assert chat.messages == []
    (tmp_path / "file").touch()
    assert "error: " in converse(chat, "an ant", f"/save {tmp_path / 'file' / 'below'}")
    assert roles(chat) == ["user", "assistant"]


def test_a_model_that_fails_does_not_take_the_other_along(pair: list[Chat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")

    def fail(request: object) -> Iterator[int]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pair[0].engine, "stream", fail)
    shown = converse(pair, "an ant", out=Screen())
    assert "out of memory" in " ".join(shown.split())
    assert pair[0].messages == []
    assert roles(pair[1]) == ["user", "assistant"]


def test_copy_hands_the_answer_to_the_terminal(chat: Chat) -> None:
    shown = converse(chat, "an ant", "/copy", out=Screen())
    sent = shown.split("\033]52;c;")[1].split("\a")[0]
    assert base64.b64decode(sent).decode() == chat.messages[-1]["content"]
    assert "needs a terminal" in converse(chat, "/copy")


def test_control_characters_of_the_model_are_not_obeyed(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "\033[31mred\a [bold]b[/bold] :smile:"
    monkeypatch.setattr(chat.engine, "stream", lambda request: iter(chat.tokenizer.encode(hostile)))
    shown = converse(chat, "an ant")
    assert "\033" not in shown
    assert "\a" not in shown
    assert "[31mred\ufffd [bold]b[/bold] :smile:" in shown
    assert chat.messages[-1]["content"] == hostile


def test_the_same_seed_gives_the_same_answers(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for _ in range(2):
        out = io.StringIO()
        monkeypatch.setattr("sys.stdin", io.StringIO("an ant\n/retry\n"))
        monkeypatch.setattr("sys.stdout", out)
        chat_in_terminal([models[0], models[0]], "Be kind.", 1.0, 12, seed=3)
        shown.append(out.getvalue())
    assert shown[0] == shown[1]
    first, second = (shown[0].split(f"one {number}: ")[1].split("\n")[0] for number in (1, 2))
    assert first == second  # equal models, equal seeds
    assert len(set(shown[0].split("one 1: ")[1:])) == 2  # another draw for the second answer


def test_a_model_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a model directory"):
        chat_in_terminal([tmp_path], None, 0.7, 10, None)


def test_save_writes_one_json_object_a_line(pair: list[Chat], tmp_path: Path) -> None:
    converse(pair, "an ant", f"/save {tmp_path / 'd.jsonl'}")
    lines = (tmp_path / "d.jsonl").read_text().splitlines()
    assert [json.loads(line)["messages"][0]["content"] for line in lines] == ["an ant", "an ant"]


def test_save_replaces_only_what_this_chat_wrote(chat: Chat, tmp_path: Path) -> None:
    taken = tmp_path / "thesis.txt"
    taken.write_text("mine")
    shown = converse(
        chat, "an ant", f"/save {taken}", f"/save {tmp_path / 'a.jsonl'}", "a bee", f"/save {tmp_path / 'a.jsonl'}"
    )
    assert "thesis.txt exists already; choose another name" in shown
    assert taken.read_text() == "mine"
    assert len(json.loads((tmp_path / "a.jsonl").read_text())["messages"]) == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "auto"])
def test_weights_of_other_types_answer_too(chat: Chat, dtype: Any) -> None:
    other = Chat(chat.model, temperature=0.0, max_new_tokens=12, dtype=dtype)
    wanted = torch.float32 if dtype == "auto" else torch.bfloat16  # auto: so small a model stays in fp32
    assert other.engine.model.tok_embeddings.weight.dtype == wanted
    assert (other.engine.decoder is not other.engine.model) == (dtype == "int8")
    converse(other, "an ant")
    assert roles(other) == ["user", "assistant"]
