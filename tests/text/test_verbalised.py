"""Evaluation samples as text: one documented rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from ayni.text.plain_words import OTHER, WALL, PlainWords
from ayni.text.samples import read_samples, read_training, verbalised
from ayni.text.sources import write_jsonl

ROWS = [
    ({"text": "as it is", "question": "not this"}, "as it is"),
    ({"answer": "Paris", "question": "Capital of France?", "passage": "France is a country."}, "France is a country.\nCapital of France?\nParis"),
    ({"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": 1}, "Which?\na\nb"),
    ({"prompt": [{"role": "user", "content": "Hi"}], "completion": "Hello"}, "Hi\nHello"),
    ({"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]}, "Be kind\nHi"),
    ({"ctx": "A man runs.", "endings": ["He falls.", "He flies."], "label": 0}, "A man runs.\nHe falls.\nHe flies."),
]  # fmt: skip


@pytest.mark.parametrize(("row", "text"), ROWS)
def test_a_rows_text(row: dict[str, object], text: str) -> None:
    assert verbalised(row, "here") == text


def test_samples_have_ids_and_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    write_jsonl(path, [{"id": 3, "text": "a"}, {"text": "b"}])
    assert [(sample.id, sample.text) for sample in read_samples(path)] == [("3", "a"), ("set-2", "b")]
    write_jsonl(path, [{"text": "a"}, {"label": 1}])
    with pytest.raises(
        ValueError, match=r"set.jsonl, line 2: expected the key text, or at least one of .*; found label"
    ):
        read_samples(path)
    write_jsonl(path, [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}])
    with pytest.raises(ValueError, match="line 2: the id '1' occurs twice"):
        read_samples(path)
    write_jsonl(path, [])
    with pytest.raises(ValueError, match="no samples in it"):
        read_samples(path)


def test_training_text_is_read_by_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one document", encoding="utf-8")
    write_jsonl(
        tmp_path / "b.jsonl", [{"text": "plain"}, {"messages": [{"role": "user", "content": "Hi"}]}, {"text": " "}]
    )
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert list(read_training([tmp_path])) == [
        (tmp_path / "a.txt", "one document"),
        (tmp_path / "b.jsonl", "plain"),
        (tmp_path / "b.jsonl", "Hi"),
    ]


def test_no_training_text_at_all_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="no training text in it"):
        list(read_training([tmp_path]))


def test_plain_words() -> None:
    coding = PlainWords()
    assert coding.encode_samples(["It's 5, it's", "five_5 é"]) == [[2, 3, 4, 5, 6, 7, 3, 4], [8, 9]]
    [flat] = coding.encode_documents(["It is 5.", "é"])
    assert flat.tolist() == [WALL, 2, OTHER, 5, OTHER, WALL, WALL, 9, WALL]
    assert coding.decode([2, 3, 4]) == "It ' s"
