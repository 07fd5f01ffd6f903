"""Suites that need no lm-eval, run as a user runs them on a tiny model of random weights."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ayni.artifacts import read_manifest
from ayni.config import ModelSettings, SuiteSettings
from ayni.evals.answering import Memory
from ayni.model.checkpoint import save_model
from ayni.model.transformer import Transformer, init_weights
from ayni.stages import suite
from ayni.text.sources import read_jsonl, write_jsonl
from ayni.text.tokenizer import train_tokenizer
from tests.conftest import ayni

TEXTS = ["Seven boats lay in the harbour, and an eighth came in with the tide; the date was 9 May 1999."] * 20


def tiny(folder: Path, name: str, seed: int) -> Path:
    tokenizer = train_tokenizer(TEXTS, folder / f"{name}-tokenizer", vocab_size=340)
    model = Transformer(
        ModelSettings(
            vocab_size=tokenizer.vocab_size, dim=16, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=32, max_seq_len=256
        )
    )
    init_weights(model, seed, std=0.3)
    (folder / name).mkdir()
    save_model(model, folder / name, tokenizer)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    tiny(folder, "chat", 0)
    tiny(folder, "base", 1)
    rng = random.Random(0)
    words = ["boats", "tides", "gulls", "nets", "ropes", "sails", "piers", "crabs"]
    rows = [{"text": f"{' '.join(rng.sample(words, 4))} {i}", "toxicity_score": 1.0 + (i % 5), "target_groups": [("women", "black")[i % 2]]}
            for i in range(80)]  # fmt: skip
    write_jsonl(folder / "statements.jsonl", rows)
    prompts = [
        {"domain": "gender", "group": f"American_act{('ors', 'resses')[i % 2]}", "prompt": f"Boat {i} is"}
        for i in range(6)
    ]
    write_jsonl(folder / "bold.jsonl", [*prompts, {**prompts[0], "domain": "race", "group": "Asian_Americans"}])
    return folder


def short(name: str, **values: object) -> SuiteSettings:
    return SuiteSettings.model_validate({"suite": name, "max_new_tokens": 6, "limit": 2, **values})


def test_two_models_on_the_same_prompts_and_equal_bytes(folder: Path, tmp_path: Path) -> None:
    command = ["eval", folder / "chat", "--suite", "toxic", "--data", folder / "statements.jsonl", "--limit", "3"]
    command += ["--set", "max_new_tokens=6", "--set", "context=3", "--chat", "--against", folder / "base"]
    done = ayni(*command, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "ToxiGen-style: 6 prompts of" in done.stdout
    assert "file:statements.jsonl" in done.stdout
    assert "explicit profanity only" in done.stdout
    assert "difference (better: lower)" in done.stdout
    assert "alignment tax" not in done.stdout
    items = read_jsonl(tmp_path / "a" / "items" / "toxigen.jsonl")
    assert [item["gold"] for item in items] == ["women"] * 3 + ["black"] * 3
    assert all(item["prompt"] and len(item["answers"]) == 1 for item in items)

    again = ayni(*command[:-2], "--out", tmp_path / "b")
    assert again.returncode == 0, again.stderr
    assert read_manifest(tmp_path / "a")["files"] == read_manifest(tmp_path / "b")["files"]


def test_bold_is_a_task_for_each_domain(folder: Path, tmp_path: Path) -> None:
    suite.run(short("bold"), folder / "chat", tmp_path / "chat", data=folder / "bold.jsonl")
    suite.run(short("bold"), folder / "base", tmp_path / "base", data=folder / "bold.jsonl")
    suite.compare(tmp_path / "chat", tmp_path / "base", tmp_path / "difference")
    results = json.loads((tmp_path / "chat" / "results.json").read_text())
    assert [(task["task"], task["rows"], task["of"]) for task in results["tasks"]] == [
        ("bold_gender", 4, 3204),
        ("bold_race", 1, 7657),
    ]
    assert results["tables"][0]["columns"] == ["model", "American_actors", "American_actresses"]
    figure = results["checkpoints"][0]["metrics"]["bold_gender American_actors"]
    assert (figure["value"], figure["n"]) == (results["tables"][0]["rows"][0][1], 2)
    tax = json.loads((tmp_path / "difference" / "tax.json").read_text())
    assert set(tax["tasks"]) == {"bold_gender", "bold_race"}
    assert tax["better"] == ["neither"]


def test_a_killed_evaluation_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.run(short("time"), folder / "chat", tmp_path / "whole")
    monkeypatch.setattr("ayni.evals.answering.PER_SAVE", 2)
    real, saves = Memory.add, []

    def killed(memory: Memory, results: dict[str, object]) -> None:
        saves.append(len(results))
        if len(saves) == 3:
            raise KeyboardInterrupt
        real(memory, results)

    monkeypatch.setattr(Memory, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        suite.run(short("time"), folder / "chat", tmp_path / "killed")
    assert not (tmp_path / "killed").exists()
    monkeypatch.setattr(Memory, "add", real)
    suite.run(short("time"), folder / "chat", tmp_path / "killed")
    assert read_manifest(tmp_path / "killed")["files"] == read_manifest(tmp_path / "whole")["files"]


def test_tools_and_written_truth_read_the_fetched_sets(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "sets"
    write_jsonl(
        data / "asdiv.jsonl",
        [{"id": f"a{i}", "passage": "Seven boats.", "question": "How many?", "golds": ["7"]} for i in range(3)],
    )
    write_jsonl(
        data / "truthfulqa.jsonl", [{"id": "t", "passage": "", "question": "Is it?", "golds": ["It is."], "wrong": []}]
    )
    suite.run(short("tools", calls=1), folder / "chat", tmp_path / "tools", data=data)
    suite.run(short("truthful", tasks=("truthfulqa",)), folder / "chat", tmp_path / "truth", data=data)
    suite.show(tmp_path / "tools")
    suite.show(tmp_path / "truth")
    shown = capsys.readouterr().out
    assert "ASDiv: 2 of 2,305 rows, with a calculator" in shown
    assert "a weak proxy" in shown
