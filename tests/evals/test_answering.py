from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ayni.config import ModelSettings
from ayni.evals.answering import Answering, Continue, numbered
from ayni.evals.memory import Memory
from ayni.model.transformer import Transformer, init_weights
from ayni.text.dialogue import encode_prompt
from ayni.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    "The harbour was quiet.",
    "Seven boats lay in it, and an eighth.",
    "Tea?",
    "A long evening by the sea, and the tide came in. " * 6,
]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many boats lay there?"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer([" ".join(TEXTS)] * 5, tmp_path_factory.mktemp("tokenizer"), vocab_size=320)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    fields = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 64, "max_seq_len": 64}
    model = Transformer(ModelSettings(vocab_size=tokenizer.vocab_size, **fields))
    init_weights(model, 0, std=0.25)
    return model


@pytest.fixture
def answering(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> Answering:
    return Answering(model, tokenizer, tmp_path / "requests.jsonl")


def nats(found: list[tuple[float, bool]]) -> list[float]:
    return [log_prob for log_prob, _ in found]


@torch.no_grad()
def log_probs(model: Transformer, ids: list[int]) -> torch.Tensor:
    """log p of each token after the first, all from one forward pass."""
    logp = torch.log_softmax(model(torch.tensor([ids[:-1]]))[0].double(), -1)
    return logp.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_context_and_continuation_are_one_text_cut_in_two(answering: Answering, tokenizer: Tokenizer) -> None:
    context, continuation = answering.encode_pair("Seven boats lay ", "in it")
    assert context + continuation == [tokenizer.bos_id, *tokenizer.encode("Seven boats lay in it")]
    assert tokenizer.decode(context) == "Seven boats lay"  # the blank belongs to what follows
    assert answering.encode_pair("", "Tea?") == ([tokenizer.bos_id], tokenizer.encode("Tea?"))


def test_log_likelihoods_are_those_of_the_whole_text(answering: Answering, model: Transformer) -> None:
    pairs = [("Seven boats", " lay in it"), ("Seven boats", " tea"), ("", "Tea?"), ("Seven boats", " lay in it")]
    found = answering.log_likelihoods(pairs)
    for pair, (log_prob, _) in zip(pairs, found):
        context, continuation = answering.encode_pair(*pair)
        assert log_prob == pytest.approx(
            float(log_probs(model, context + continuation)[-len(continuation) :].sum()), abs=1e-4
        )


def test_a_long_text_is_predicted_once_in_windows_and_the_last_sees_most(
    answering: Answering, model: Transformer, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode(TEXTS[3])
    assert len(ids) > answering.max_len + 8
    first, rest = ids[: answering.max_len], ids[answering.max_len :]
    expected = float(log_probs(model, [tokenizer.bos_id, *first]).sum())
    expected += float(log_probs(model, ids[-answering.max_len - 1 :])[-len(rest) :].sum())
    assert answering.rolling([TEXTS[3]]) == [pytest.approx(expected, abs=1e-3)]


def test_greedy_continuations_end_at_until_or_the_limit(answering: Answering) -> None:
    whole = answering.continuations([Continue("Seven", max_new_tokens=12)])[0]
    assert len(whole) > 4
    stop = whole[2]
    cut = answering.continuations([Continue("Seven", until=(stop,), max_new_tokens=12)])[0]
    assert cut == whole.split(stop)[0]


def test_samples_of_one_prompt_differ_and_greedy_ones_are_asked_once() -> None:
    sampled, greedy = Continue("Tea", temperature=1.0), Continue("Tea")
    assert [each.nth for each in numbered([sampled, greedy, sampled, greedy, sampled])] == [0, 0, 1, 0, 2]


def test_chats_are_written_as_the_dialogue_format_writes_them(answering: Answering, tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_raw(answering.dialogue(MESSAGES)) == encode_prompt(tokenizer, MESSAGES)
    begun = [*MESSAGES, {"role": "assistant", "content": "Seven and"}]
    assert answering.dialogue(begun, is_open=False) == answering.dialogue(MESSAGES) + "Seven and"


def test_a_killed_evaluation_goes_on(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "requests.jsonl"
    pairs = [(text, " and so on") for text in TEXTS]
    whole = Answering(model, tokenizer, tmp_path / "whole.jsonl").log_likelihoods(pairs)

    monkeypatch.setattr("ayni.evals.answering.PER_SAVE", 1)
    asked: list[int] = []
    real = Memory.add

    def killed(memory: Memory, results: dict[str, object]) -> None:
        asked.append(len(results))
        if len(asked) == 3:
            raise KeyboardInterrupt
        real(memory, results)

    monkeypatch.setattr(Memory, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        Answering(model, tokenizer, file).log_likelihoods(pairs)
    with file.open("a") as out:
        out.write('{"key": "torn')
    asked.clear()
    monkeypatch.setattr(Memory, "add", lambda memory, results: (asked.append(len(results)), real(memory, results)))
    again = Answering(model, tokenizer, file)
    assert len(again.memory.known) == 2
    assert nats(again.log_likelihoods(pairs)) == pytest.approx(nats(whole), abs=1e-4)
    assert sum(asked) == 2  # the two that were missing
    assert nats(Answering(model, tokenizer, file).log_likelihoods(pairs)) == pytest.approx(nats(whole), abs=1e-4)
    assert sum(asked) == 2


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text('{"key": "a", "result": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"requests\.jsonl, line 2: not a saved result"):
        Memory(tmp_path / "requests.jsonl")
