"""Mistakes that users make: one clear error that names the place, exit code 2, nothing written or lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMOKE, environment

Fails = Callable[..., str]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def chat(*roles_and_texts: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": text} for role, text in roles_and_texts]}


GOOD = chat(("user", "Who sells bread?"), ("assistant", "The baker does."))


def test_unknown_key_in_a_recipe(fails: Fails, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", SMOKE.read_text().replace("tokens: 40_000", "tokns: 40_000"))
    message = fails("run", recipe, "--out", tmp_path / "run")
    assert f"{recipe}, line " in message
    assert "pretrain.tokns: unknown key; did you mean 'tokens'?" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("seed: 0", "seed: many", "line 4: seed"),
        ("name: smoke", "", "name: Field required"),
        ("pretrain:", "pretrain", "not valid YAML"),
        ("options: {scale: small}", "options: {scale: small, planets: 3}", "planets"),
        ("source: world", "source: atlantis", "no data plug-in is called 'atlantis'"),
        ("vocab_size: 700", "vocab_size: 12", "tokenizer.vocab_size"),
    ],
)
def test_other_mistakes_in_a_recipe(fails: Fails, tmp_path: Path, before: str, after: str, expected: str) -> None:
    recipe = write(tmp_path / "r.yaml", SMOKE.read_text().replace(before, after, 1))
    assert expected in fails("run", recipe, "--out", tmp_path / "run")


def test_missing_recipe_and_missing_data(fails: Fails, smoke_run: Path, tmp_path: Path) -> None:
    assert "no such recipe" in fails("run", tmp_path / "none.yaml")
    assert "none.jsonl" in fails(
        "sft", "--model", smoke_run / "base", "--data", tmp_path / "none.jsonl", "--out", tmp_path / "o"
    )
    assert str(tmp_path / "none") in fails(
        "sft", "--model", tmp_path / "none", "--data", write(tmp_path / "c.jsonl", GOOD), "--out", tmp_path / "o"
    )
    assert not (tmp_path / "o").exists()


def test_empty_corpus(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    assert "corpus" in fails("tokenizer", "--data", tmp_path / "corpus", "--out", tmp_path / "t")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "empty.txt" in fails("tokenizer", "--data", tmp_path / "empty.txt", "--out", tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"messages": [', "line 2"),
        (chat(("user", "Hello?")), "assistant"),
        (chat(("user", "a"), ("assistant", "b"), ("assistant", "c")), "both by the assistant"),
        ({"text": "no messages"}, "messages"),
    ],
)
def test_bad_chats(fails: Fails, smoke_run: Path, tmp_path: Path, line: object, expected: str) -> None:
    chats = write(tmp_path / "chats.jsonl", GOOD, line)
    message = fails("sft", "--model", smoke_run / "base", "--data", chats, "--out", tmp_path / "o")
    assert f"{chats}, line 2" in message
    assert expected in message
    assert not (tmp_path / "o").exists()


def test_a_preference_with_equal_answers(fails: Fails, smoke_run: Path, tmp_path: Path) -> None:
    answer = [{"role": "assistant", "content": "Yes."}]
    row = {"prompt": [{"role": "user", "content": "Is it raining?"}], "chosen": answer, "rejected": answer}
    pairs = write(tmp_path / "pairs.jsonl", row)
    message = fails("reward", "--model", smoke_run / "sft", "--data", pairs, "--out", tmp_path / "o")
    assert f"{pairs}, line 1" in message


def test_wrong_vocabulary_between_model_and_tokenizer(fails: Fails, smoke_run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(smoke_run / "base", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] - 50}))
    chats = write(tmp_path / "chats.jsonl", GOOD)
    message = fails("sft", "--model", model, "--data", chats, "--out", tmp_path / "o")
    assert str(config["vocab_size"] - 50) in message
    assert str(config["vocab_size"]) in message


def test_truncated_safetensors(fails: Fails, smoke_run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(smoke_run / "base", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    chats = write(tmp_path / "chats.jsonl", GOOD)
    assert "model.safetensors" in fails("sft", "--model", model, "--data", chats, "--out", tmp_path / "o")


def test_a_full_disk_publishes_nothing_and_loses_nothing(smoke_run: Path, tmp_path: Path) -> None:
    """The largest file a process may write stands in for the disk's end: the system refuses the write just the same."""
    chats = write(tmp_path / "chats.jsonl", GOOD)
    command = f"ulimit -f 20; trap '' XFSZ; exec {sys.executable} -m ayni sft --model {smoke_run}/base --data {chats} --out {tmp_path}/o"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "disk" in done.stderr
    assert not (tmp_path / "o").exists()


def test_nan_loss_stops_the_run_and_names_the_last_good_checkpoint(
    fails: Fails, smoke_run: Path, tmp_path: Path
) -> None:
    chats = write(tmp_path / "chats.jsonl", *[GOOD] * 40)
    message = fails(
        "sft", "--model", smoke_run / "base", "--data", chats, "--out", tmp_path / "o", "--lr", "1e30",
        "--set", "optimizer.clip=0", "--set", "batch_rows=1", "--set", "row_len=32", "--set", "save_every=1",
    )  # fmt: skip
    assert "diverged at step" in message
    assert "last good checkpoint" in message
    assert not (tmp_path / "o").exists()


def test_unknown_setting_of_a_stage(fails: Fails, smoke_run: Path, tmp_path: Path) -> None:
    chats = write(tmp_path / "chats.jsonl", GOOD)
    message = fails("sft", "--model", smoke_run / "base", "--data", chats, "--out", tmp_path / "o", "--set", "epoch=3")
    assert "epoch" in message
    assert "epochs" in message
