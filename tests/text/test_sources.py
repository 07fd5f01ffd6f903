from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ayni.text import sources
from ayni.text.sources import read_chats, read_jsonl, read_preferences, read_prompts, read_texts, write_jsonl

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
OTHER = {"role": "assistant", "content": "what?"}


def test_texts_from_every_format_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    write_jsonl(tmp_path / "b.jsonl", [{"text": "three"}, {"text": "  "}])
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "four"}\n'))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["five", "six"]}), tmp_path / "d.parquet")
    (tmp_path / "notes.md").write_text("not read")
    assert list(read_texts(tmp_path)) == ["one\n\ntwo\n", "three", "four", "five", "six"]
    assert list(read_texts(tmp_path / "d.parquet")) == ["five", "six"]


def test_long_text_is_cut_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LONG_DOCUMENT", 10)
    text = "a first paragraph\nof two lines\n\nshort\n\na last one here"
    (tmp_path / "a.txt").write_text(text)
    parts = list(read_texts(tmp_path / "a.txt"))
    assert parts == ["a first paragraph\nof two lines\n\n", "short\n\na last one here"]


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    rows = [{"text": "line\u2028separator\nand 日本"}, {"n": 1.5, "none": None}]
    assert write_jsonl(tmp_path / "deep" / "rows.jsonl", iter(rows)) == 2
    assert read_jsonl(tmp_path / "deep" / "rows.jsonl") == rows


def test_chats_keep_other_keys(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"messages": [USER, ANSWER], "id": 7}, {"prompt": "hi", "completion": "hello"}])
    assert read_chats(tmp_path / "c.jsonl") == [{"messages": [USER, ANSWER], "id": 7}, {"messages": [USER, ANSWER]}]


def test_prompts_get_defaults(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "p.jsonl", [{"prompt": "hi"}, {"id": "x", "messages": [USER], "prompt_kind": "safety", "task": "t"}]
    )
    assert read_prompts(tmp_path / "p.jsonl") == [
        {"id": "p-1", "prompt_kind": "helpful", "task": "chat", "meta": {}, "messages": [USER]},
        {"id": "x", "prompt_kind": "safety", "task": "t", "meta": {}, "messages": [USER]},
    ]


PREFERENCE_FORMS: dict[str, dict[str, Any]] = {
    "TRL": {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
    "TRL, prompt inside": {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
    "strings": {"prompt": "hi", "chosen": "hello", "rejected": "what?"},
    "HH-RLHF": {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: what?"},
    "HH-RLHF, prompt apart": {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " hello", "rejected": " what?"},
}


@pytest.mark.parametrize("row", PREFERENCE_FORMS.values(), ids=PREFERENCE_FORMS.keys())
def test_preferences_in_every_form(tmp_path: Path, row: dict[str, Any]) -> None:
    write_jsonl(tmp_path / "batch.jsonl", [row])
    (found,) = read_preferences(tmp_path / "batch.jsonl")
    assert found["prompt"] == [USER]
    assert [found[key][0]["content"].strip() for key in ("chosen", "rejected")] == ["hello", "what?"]
    rest = {key: found[key] for key in ("strength", "prompt_kind", "safety", "source", "round", "annotator")}
    assert rest == {"strength": None, "prompt_kind": "helpful", "safety": None, "source": "batch", "round": 0, "annotator": "unknown"}  # fmt: skip


def test_hh_transcript_with_turns_and_a_speaker_twice(tmp_path: Path) -> None:
    head = "\n\nHuman: hi\n\nAssistant: hello\n\nAssistant: still here\n\nHuman: how?\n\nAssistant:"
    write_jsonl(tmp_path / "hh.jsonl", [{"chosen": head + " so\n\nand so", "rejected": head + " no"}])
    (found,) = read_preferences(tmp_path / "hh.jsonl")
    assert found["prompt"] == [
        USER,
        {"role": "assistant", "content": "hello\n\nstill here"},
        {"role": "user", "content": "how?"},
    ]
    assert found["chosen"] == [{"role": "assistant", "content": "so\n\nand so"}]


def test_own_keys_of_a_preference_are_kept(tmp_path: Path) -> None:
    row = {
        **PREFERENCE_FORMS["TRL"],
        "strength": 3,
        "prompt_kind": "safety",
        "safety": "chosen_only",
        "round": 2,
        "task": "x",
    }
    write_jsonl(tmp_path / "p.jsonl", [row])
    (found,) = read_preferences(tmp_path / "p.jsonl")
    assert row.items() <= found.items()


TRL = PREFERENCE_FORMS["TRL"]
MISTAKES: list[tuple[Any, str, list[str]]] = [
    (read_jsonl, '{"a": 1}\n{"a": \n', ["line 2", "not JSON", "expected one object per line"]),
    (read_jsonl, '{"a": 1}\n[1, 2]\n', ["line 2", "expected an object", "[1, 2]"]),
    (read_jsonl, b'{"a": "\xff"}\n', ["line 1", "not UTF-8"]),
    (lambda path: list(read_texts(path)), "", ["the corpus is empty"]),
    (lambda path: list(read_texts(path)), '{"text": " "}\n', ["the corpus is empty"]),
    (lambda path: list(read_texts(path)), '{"text": "a"}\n\n{"txt": "b"}\n', ["line 3", '"text"', "found txt"]),
    (read_chats, "\n", ["no chats"]),
    (read_chats, json.dumps({"chat": []}), ["line 1", "expected the key messages", "found chat"]),
    (read_chats, json.dumps({"messages": [USER]}), ["line 1", "no assistant turn"]),
    (read_chats, json.dumps({"messages": [USER, ANSWER, ANSWER]}), ["line 1", "messages 2 and 3 are both by the assistant"]),
    (read_chats, json.dumps({"messages": [USER, ANSWER, USER]}), ["line 1", "the last message is by the user"]),
    (read_prompts, json.dumps({"messages": [USER, ANSWER]}), ["line 1", "expected the user"]),
    (read_prompts, json.dumps({"prompt": "a", "prompt_kind": "safe"}), ["line 1", "prompt_kind is 'safe'", "'helpful', 'safety'"]),
    (read_prompts, json.dumps({"prompt": 3}), ["line 1", "prompt must be text or a list of messages"]),
    (read_preferences, json.dumps({"chosen": "a"}), ["line 1", "expected the keys chosen and rejected"]),
    (read_preferences, json.dumps(TRL | {"rejected": [ANSWER]}), ["line 1", "the same answer"]),
    (read_preferences, json.dumps(TRL | {"strength": 4}), ["line 1", "strength is 4", "0, 1, 2, 3"]),
    (read_preferences, json.dumps(TRL | {"safety": "yes"}), ["line 1", "safety is 'yes'"]),
    (read_preferences, json.dumps(TRL | {"prompt": [USER, ANSWER]}), ["line 1", "both by the assistant"]),
    (read_preferences, json.dumps({"chosen": "a", "rejected": "b"}), ["line 1", "the same prompt"]),
]  # fmt: skip


@pytest.mark.parametrize(("read", "content", "says"), MISTAKES)
def test_mistakes_name_file_and_line(tmp_path: Path, read: Any, content: str | bytes, says: list[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"rows\.jsonl") as error:
        read(file)
    for part in says:
        assert part in str(error.value)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jsonl: no such file or folder"):
        list(read_texts(tmp_path / "absent.jsonl"))
    with pytest.raises(ValueError, match=r"the folder has no file that ends in \.txt"):
        list(read_texts(tmp_path))
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"a\.csv: expected a file that ends in \.jsonl"):
        read_chats(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_broken_containers_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 or not" if "parquet" in name else gzip.compress(b'{"text": "a"}' * 99)[:-9])
    with pytest.raises(ValueError, match=name):
        read_jsonl(tmp_path / name)
