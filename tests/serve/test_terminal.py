"""The terminal chat, driven through its own input and output."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ayni.serve.terminal import Chat, find_model, talk


def converse(chat: Chat, *lines: str) -> str:
    out = io.StringIO()
    talk(chat, io.StringIO("\n".join(lines) + "\n"), out)
    return out.getvalue()


def test_a_run_directory_stands_for_its_latest_model(smoke_run: Path) -> None:
    assert find_model(smoke_run) == smoke_run / "v2_ppo"
    assert find_model(smoke_run / "sft") == smoke_run / "sft"
    with pytest.raises(ValueError, match="neither a model directory"):
        find_model(smoke_run / "data")


def test_a_dialogue_with_system_message_retry_and_save(smoke_run: Path, tmp_path: Path) -> None:
    chat = Chat(smoke_run / "sft", temperature=0.0, max_new_tokens=12)
    saved = tmp_path / "dialogue.jsonl"
    shown = converse(chat, "/system Be kind.", "Who are you?", "/retry", f"/save {saved}", "/temp 0.5", "/quit")
    messages = json.loads(saved.read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert shown.count("ayni: ") == 2
    assert messages[-1]["content"] in shown
    assert chat.temperature == 0.5


def test_mistakes_leave_the_dialogue_as_it_was(smoke_run: Path) -> None:
    chat = Chat(smoke_run / "sft", temperature=0.0, max_new_tokens=8)
    shown = converse(chat, "/retry", "/temp warm", "/unknown", "word " * 400)
    assert "there is no answer to try again" in shown
    assert "expected a number" in shown
    assert "/system TEXT" in shown
    assert "max_seq_len" in shown or "tokens" in shown
    assert chat.messages == []
