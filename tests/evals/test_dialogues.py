"""Each model's own way through the user's turns, and that a killed run samples what it would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayni.engine.answers import sample_answers
from ayni.engine.engine import Engine
from ayni.evals import dialogues
from ayni.evals.dialogues import answered, dialogue
from ayni.evals.memory import Memory
from ayni.text.sources import read_prompts, write_jsonl
from ayni.text.tokenizer import load_tokenizer, train_tokenizer
from tests.serve.tiny import language_model

Row = dict[str, Any]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    here = tmp_path_factory.mktemp("dialogues")
    train_tokenizer(["Who bakes? The baker does. And then? What else is there?"] * 30, here / "tok", vocab_size=300)
    tokenizer = load_tokenizer(here / "tok")
    return Engine(language_model(tokenizer), tokenizer)


def rows(path: Path, count: int) -> list[Row]:
    """Every third of one turn, of two, of three; as files say it."""
    write_jsonl(path, ({"id": f"r{i}", "turns": [f"Who bakes {i}?", "And then?", "What else?"][: 1 + i % 3]} for i in range(count)))  # fmt: skip
    return read_prompts(path)


def ask(engine: Engine, given: list[Row], memory: Path) -> list[Row]:
    assert engine.tokenizer is not None
    return answered(engine, engine.tokenizer, given, Memory(memory), temperature=0.7, max_new_tokens=8, seed=3)


def test_every_turn_is_asked_in_sight_of_the_models_own_answers(engine: Engine, tmp_path: Path) -> None:
    given = rows(tmp_path / "p.jsonl", 9)
    found = ask(engine, given, tmp_path / "m.jsonl")
    assert [len(row["replies"]) for row in found] == [1, 2, 3] * 3
    row, own = given[5], found[5]
    assert engine.tokenizer is not None
    for turn in range(3):
        messages = [{"role": "user", "content": "Who bakes 5?"}]
        for reply, user in zip(own["replies"][:turn], ["And then?", "What else?"]):
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": user}]
        assert dialogue(row, own["replies"][:turn]) == messages
        asked = {"id": f"r5 turn {turn}", "messages": messages}
        [[alone]] = sample_answers(engine, engine.tokenizer, [asked], temperature=0.7, max_new_tokens=8, seed=3)
        assert alone.text == own["replies"][turn]
        assert (len(alone.ids), alone.ended) == (own["tokens"][turn], own["ended"][turn])


def test_a_killed_run_goes_on_with_what_it_has(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogues, "PER_SAVE", 4)
    given = rows(tmp_path / "p.jsonl", 10)
    whole = ask(engine, given, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 10
    asked: list[str] = []

    def counting(*given: Any, **more: Any) -> Any:
        asked.extend(row["id"].split()[0] for row in given[2])
        return sample_answers(*given, **more)

    monkeypatch.setattr(dialogues, "sample_answers", counting)
    for kept, again in ((0, 10), (3, 10), (4, 6), (6, 6), (8, 2), (10, 0)):
        memory = tmp_path / f"{kept}.jsonl"
        memory.write_bytes(b"".join(lines[:kept]) + lines[-1][:20])  # killed in the middle of a line
        asked.clear()
        assert ask(engine, given, memory) == whole
        assert len(set(asked)) == again, "whole chunks, so that rows have the neighbours they would have had"


def test_no_room_is_told_at_the_first_turn_and_left_empty_at_a_later_one(engine: Engine, tmp_path: Path) -> None:
    long = {"id": "long", "messages": [{"role": "user", "content": "Who bakes? " * 200}]}
    with pytest.raises(ValueError, match=r"prompt long: \d+ tokens, and the model's context holds 160"):
        ask(engine, [long], tmp_path / "m.jsonl")
    later = {"id": "later", "messages": [{"role": "user", "content": "Who?"}], "turns": ["Who?", "Who bakes? " * 200, "Who?"]}  # fmt: skip
    [found] = ask(engine, [later], tmp_path / "n.jsonl")
    assert found["replies"][1:] == ["", ""]
    assert found["tokens"][1:] == [0, 0]
    assert found["ended"][1:] == [False, False]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"turns": []}, "turns must be a list of what the user says"),
        ({"turns": "Who?"}, "turns must be a list of what the user says"),
        ({"turns": ["Who?", ""]}, "turns must be a list of what the user says"),
        ({"prompt": "Why?", "turns": ["Who?", "What?"]}, "must end with the first of turns, 'Who\\?'"),
    ],
)
def test_mistakes_in_turns_name_the_line(tmp_path: Path, row: Row, expected: str) -> None:
    path = tmp_path / "p.jsonl"
    write_jsonl(path, [{"prompt": "Good?"}, row])
    with pytest.raises(ValueError, match=rf"p\.jsonl, line 2: .*{expected}"):
        read_prompts(path)
