"""Rejection sampling: which answer becomes the target, and from which model the next version starts (TRAPS 14)."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ayni.config import ModelSettings, RejectionSettings
from ayni.engine.answers import Answer, answers_in, encoded_answer
from ayni.model.checkpoint import load_model, save_model
from ayni.model.transformer import Transformer
from ayni.scoring.reward import Scorers
from ayni.stages import rejection
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.sources import read_jsonl
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.conftest import ayni


def answer(text: str, ended: bool = True) -> Answer:
    return Answer(prompt_ids=[1, 4], ids=[10, 2] if ended else [10], text=text, ended=ended, logprobs=[0.0])


def test_the_best_ended_answer_is_the_target() -> None:
    rows = [{"id": str(i), "messages": [{"role": "user", "content": "?"}]} for i in range(3)]
    answers = [[answer("a"), answer("b")], [answer("c"), answer("cut", ended=False)], [answer("x", ended=False)] * 2]
    best = rejection.pick(rows, answers, torch.tensor([[0.1, 0.9], [0.2, 5.0], [1.0, 1.0]]))
    assert [(row["id"], row["messages"][-1]["content"], row["reward"]) for row in best] == [
        ("0", "b", 0.9),
        ("1", "c", 0.2),
    ]


def test_trap_14_start_model_latest_model_and_carried_samples(smoke_run: Path, tmp_path: Path) -> None:
    """V4 samples from the latest model, starts from SFT by default, and takes the top samples of earlier versions along."""
    settings = RejectionSettings(k=2, prompts=4, row_len=128, max_new_tokens=16, epochs=1, batch_rows=2)
    scorers = Scorers(smoke_run / "v2_reward_helpfulness", smoke_run / "v2_reward_safety")
    latest, sft, earlier = (
        smoke_run / "v2_ppo",
        smoke_run / "sft",
        [smoke_run / "v1_rejection", smoke_run / "v2_rejection"],
    )
    inputs, counts = {}, {}
    for version in (3, 4):
        out = tmp_path / f"v{version}"
        made = rejection.run(settings, smoke_run / "data", latest, sft, scorers, earlier, out, version=version, seed=1)
        inputs[version] = made.manifest["inputs"]
        counts[version] = json.loads((out / rejection.SUMMARY).read_text())
        own = sum(1 for _ in (out / rejection.SAMPLES).open())
        assert own == counts[version]["targets"], "carried samples are not this version's: the next carries each once"
    hashes = {
        name: json.loads((path / "manifest.json").read_text())["hash"]
        for name, path in (("sft", sft), ("latest", latest))
    }
    assert inputs[4]["start"]["hash"] == hashes["sft"]
    assert inputs[4]["latest"]["hash"] == hashes["latest"]
    assert not any(name.startswith("earlier") for name in inputs[3])
    carried = sum(sum(1 for _ in (path / rejection.SAMPLES).open()) for path in earlier)
    assert 0 < counts[3]["targets"] <= 4
    assert counts[3]["carried"] == 0
    assert 0 < counts[4]["targets"] <= 4
    assert counts[4]["carried"] == carried > 0
    again = settings.model_copy(update={"start": "latest"})
    made = rejection.run(again, smoke_run / "data", latest, sft, scorers, [], tmp_path / "again", version=2, seed=1)
    assert made.manifest["inputs"]["start"]["hash"] == hashes["latest"]


def small_model(directory: Path, tokenizer: Tokenizer) -> Path:
    """Half as wide as the smoke run's models."""
    torch.manual_seed(7)
    model = Transformer(
        ModelSettings(
            vocab_size=tokenizer.vocab_size, dim=16, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=32, max_seq_len=256
        )
    )
    save_model(model, directory, tokenizer)
    return directory


def test_a_smaller_model_learns_from_a_larger_ones_samples(smoke_run: Path, tmp_path: Path) -> None:
    """Same tokenizer: what becomes the target is to the byte what the larger model samples for itself."""
    large, scorers = smoke_run / "v1_rejection", Scorers(smoke_run / "v1_reward_helpfulness", None)
    small = small_model(tmp_path / "small", load_tokenizer(large))
    settings = RejectionSettings(k=2, prompts=12, row_len=128, max_new_tokens=16, epochs=1, batch_rows=2)
    shared = {"version": 1, "seed": 3}
    rejection.run(settings, smoke_run / "data", large, large, scorers, [], tmp_path / "itself", **shared)
    learns = settings.model_copy(update={"sampler": large})
    made = rejection.run(learns, smoke_run / "data", small, small, scorers, [], tmp_path / "taught", **shared)
    assert (tmp_path / "taught" / rejection.SAMPLES).read_bytes() == (
        tmp_path / "itself" / rejection.SAMPLES
    ).read_bytes()
    before, after = load_model(small), load_model(made.path)
    assert after.settings.dim == 16
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters()))


def test_samples_are_encoded_anew_where_the_tokenizers_differ(smoke_run: Path, tmp_path: Path) -> None:
    """Through the command line: targets are the larger model's texts in the smaller model's tokens."""
    large = smoke_run / "v1_rejection"
    texts = [row["text"] for row in read_jsonl(smoke_run / "data" / "corpus" / "stories.jsonl")]
    other = train_tokenizer(texts, tmp_path / "tokenizer", vocab_size=400)
    small = small_model(tmp_path / "small", other)
    done = ayni(
        "rejection", "--model", small, "--sampler", large, "--helpfulness", smoke_run / "v1_reward_helpfulness",
        "--data", smoke_run / "data", "--k", "2", "--prompts", "12", "--set", "row_len=128", "--set", "max_new_tokens=16",
        "--set", "batch_rows=2", "--set", "epochs=1", "--out", tmp_path / "taught",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_tokenizer(tmp_path / "taught").hash == other.hash != load_tokenizer(large).hash
    samples = read_jsonl(tmp_path / "taught" / rejection.SAMPLES)
    assert samples
    for sample in samples:
        ids, is_answer = encode_chat(other, sample["messages"], "last")
        assert sample["prompt_ids"] == encode_prompt(other, sample["messages"][:-1])
        assert sample["answer_ids"] == [token for token, ours in zip(ids, is_answer) if ours]
        assert sample["answer_ids"][-1] == other.eos_id


def test_an_answer_in_other_tokens_ends_only_if_it_ended(smoke_run: Path, tmp_path: Path) -> None:
    theirs = load_tokenizer(smoke_run / "sft")
    ours = train_tokenizer(["Tom keeps a goat in Arden. " * 30], tmp_path, vocab_size=300)
    rows = [{"messages": [{"role": "user", "content": "Who keeps a goat?"}]}]
    whole, cut = (
        Answer(prompt_ids=[1], ids=theirs.encode("Tom"), text="Tom", ended=ended, logprobs=[])
        for ended in (True, False)
    )
    [[ended, unended]] = answers_in(ours, theirs, rows, [[whole, cut]])
    assert ended.ids == [*unended.ids, ours.eos_id]
    assert ours.decode(unended.ids).strip() == "Tom"
    assert answers_in(theirs, theirs, rows, [[whole, cut]]) == [[whole, cut]]
    assert encoded_answer(ours, rows[0]["messages"], "").ids == [ours.eos_id]
