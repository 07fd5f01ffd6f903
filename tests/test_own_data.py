"""The stages on a user's own files, through the real command line: README's list, one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ayni

TEXT = "The baker sells bread. The smith mends a wheel. The miller grinds corn for {} people in the old town.\n\n"
ROWS = ["--set", "row_len=64", "--set", "batch_rows=4"]


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts in a folder with a subfolder -> tokenizer -> base -> SFT -> two reward models, all from a user's files."""
    here = tmp_path_factory.mktemp("own")
    corpus = here / "corpus"
    (corpus / "letters").mkdir(parents=True)
    (corpus / "a.txt").write_text("".join(TEXT.format(i) for i in range(150)))
    (corpus / "letters" / "a.txt").write_text("".join(TEXT.format(i) for i in range(150, 250)))
    jsonl(corpus / "b.jsonl", [{"text": TEXT.format(i).strip()} for i in range(250, 400)])
    chats = jsonl(
        here / "chats.jsonl",
        [
            {"messages": [say("user", f"Who sells {i} loaves?"), say("assistant", "The baker sells bread.")]}
            for i in range(60)
        ],
    )
    pairs = [
        {
            "prompt": [say("user", f"Who mends wheel {i}?")],
            "chosen": [say("assistant", "The smith mends a wheel.")],
            "rejected": [say("assistant", f"No idea {i}.")],
        }
        for i in range(40)
    ]
    hh = [
        {
            "chosen": f"\n\nHuman: Who mends wheel {i}?\n\nAssistant: The smith mends a wheel.",
            "rejected": f"\n\nHuman: Who mends wheel {i}?\n\nAssistant: No idea {i}.",
        }
        for i in range(40)
    ]
    jsonl(here / "prompts.jsonl", [{"messages": [say("user", f"Who sells {i} loaves?")]} for i in range(20)])
    small = [
        "--set",
        "model.dim=32",
        "--set",
        "model.n_layers=2",
        "--set",
        "model.n_heads=2",
        "--set",
        "model.n_kv_heads=1",
        "--set",
        "model.ffn_dim=64",
    ]
    commands = [
        ["tokenizer", "--data", corpus, "--out", here / "tokenizer", "--vocab-size", "350"],
        ["pretrain", "--data", corpus, "--tokenizer", here / "tokenizer", "--out", here / "base", "--tokens", "20000", "--lr", "0.003", *small, *ROWS],
        ["sft", "--model", here / "base", "--data", chats, "--out", here / "sft", "--epochs", "8", "--lr", "0.003", *ROWS],
        ["reward", "--model", here / "sft", "--data", jsonl(here / "pairs.jsonl", pairs), "--out", here / "helpfulness", "--set", "row_len=64"],
        ["reward", "--model", here / "sft", "--data", jsonl(here / "hh.jsonl", hh), "--kind", "safety", "--out", here / "safety", "--set", "row_len=64"],
    ]  # fmt: skip
    for command in commands:
        done = ayni(*command)
        assert done.returncode == 0, (command[0], done.stderr)
        assert "next: ayni" in done.stdout
    return here


def test_sources_of_a_folder_are_its_files_and_subfolders(models: Path) -> None:
    assert sorted(path.name for path in (models / "base-shards" / "train").iterdir()) == [
        "b.npy",
        "letters.npy",
        "texts.npy",
    ]


def test_rejection_and_ppo_run_with_and_without_a_safety_model(models: Path) -> None:
    common = ["--model", models / "sft", "--helpfulness", models / "helpfulness", "--data", models / "prompts.jsonl"]
    rejection = ["--k", "2", "--prompts", "8", "--set", "max_new_tokens=12", "--set", "epochs=1", *ROWS]
    ppo = [
        "--iterations",
        "2",
        "--set",
        "batch=8",
        "--set",
        "minibatch=4",
        "--set",
        "max_new_tokens=12",
        "--set",
        "row_len=64",
    ]
    for name, command, flags in (("v1", "rejection", rejection), ("v2", "ppo", ppo)):
        for suffix, safety in (("", ["--safety", models / "safety"]), ("-helpful", [])):
            done = ayni(command, *common, *safety, *flags, "--out", models / f"{name}{suffix}")
            assert done.returncode == 0, done.stderr
            assert (models / f"{name}{suffix}" / "model.safetensors").is_file()


def test_dpo_runs_on_a_users_preferences(models: Path) -> None:
    flags = ["--lr", "0.001", "--epochs", "2", "--set", "row_len=64", "--set", "batch_pairs=8"]
    done = ayni("dpo", "--model", models / "sft", "--preferences", models / "pairs.jsonl", *flags, "--out", models / "dpo")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "next: ayni chat" in done.stdout
    assert json.loads((models / "dpo" / "accuracy.json").read_text())["accuracy"]["n"] == 4


def test_eval_of_a_chat_model_and_of_a_reward_model(models: Path) -> None:
    assert (
        ayni("eval", "--model", models / "sft", "--data", models / "chats.jsonl", "--max-new-tokens", "12").returncode
        == 0
    )
    metrics = json.loads((models / "sft-eval" / "results.json").read_text())["checkpoints"][0]["metrics"]
    assert metrics["answer_perplexity"]["value"] > 1
    assert metrics["rouge_l"]["n"] == 60
    assert ayni("eval", "--model", models / "helpfulness", "--data", models / "pairs.jsonl").returncode == 0
    ranked = json.loads((models / "helpfulness-eval" / "results.json").read_text())["checkpoints"][0]["metrics"]
    assert ranked["accuracy"]["n"] == 40
    assert 0 <= ranked["accuracy"]["low"] <= ranked["accuracy"]["value"] <= 1


@pytest.mark.parametrize(
    "command", ["run", "tokenizer", "pretrain", "sft", "reward", "rejection", "ppo", "dpo", "eval", "compare", "chat"]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = ayni(command, "--help")
    assert done.returncode == 0
    assert f"ayni {command}" in done.stdout.split("Example")[1]


def test_only_the_stages_that_measure_ask_for_a_judge() -> None:
    """TRAPS 24: import-linter cannot see a plug-in that is looked up by name, so this does. (The red team's training prompts are its eyes' choice.)"""
    package = Path(__file__).parents[1] / "ayni"
    asking = [str(path.relative_to(package)) for path in package.rglob("*.py") if 'plugin("judges"' in path.read_text()]
    suites = ["evals/written/refusal_scorers.py", "evals/written/safety_raters.py"]
    assert sorted(asking) == [*suites, "stages/compare.py", "stages/evaluate.py", "stages/redteam.py"]
