"""The studies of pretraining and SFT: their arithmetic against naive loops, and all of them once in small."""

from pathlib import Path

import pytest
import torch

from ayni.config import PRESETS, ModelSettings
from ayni.model.transformer import Transformer, init_weights
from ayni.studies import catalogue
from ayni.studies.lab import Lab
from ayni.studies.pretraining import beyond_optimal, gqa
from ayni.studies.pretraining.decode_speed import cache_bytes, tokens_per_second, with_kv_heads
from ayni.studies.pretraining.held_out_text import losses, position_losses, right
from ayni.studies.pretraining.sft_quality import CHATS, few
from ayni.text.sources import read_chats, read_jsonl, read_prompts, read_texts
from ayni.text.tokenizer import load_tokenizer

from .in_small import check_result, first_lab, run_in_small

NAMES = catalogue.BY_GROUP["pretraining"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every study of the group in small, one seed."""
    return run_in_small(NAMES, tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def lab(work: Path) -> Lab:
    """The seed's models as the studies left them."""
    return first_lab(work)


def small_model(max_seq_len: int) -> Transformer:
    size = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 32}
    model = Transformer(ModelSettings.model_validate({**size, "max_seq_len": max_seq_len}))
    init_weights(model, 0, std=0.3)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_every_study_gives_a_result(work: Path, name: str) -> None:
    check_result(work, name, "pretraining", every_line=False)


@pytest.mark.parametrize("name", ["tiny", "7b", "70b"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_models_with_other_key_heads_are_equal_in_parameters(name: str, kv_heads: int) -> None:
    before = PRESETS[name]
    after = with_kv_heads(before, kv_heads)
    assert after.n_kv_heads == kv_heads
    assert beyond_optimal.parameters(after) == pytest.approx(beyond_optimal.parameters(before), rel=1e-3)


def test_parameters_are_counted_as_the_model_has_them() -> None:
    for settings in (PRESETS["tiny"], ModelSettings(tie_embeddings=False)):
        assert beyond_optimal.parameters(settings) == sum(p.numel() for p in Transformer(settings).parameters())


def test_cache_bytes_are_those_of_the_cache() -> None:
    from ayni.engine.cache import KVCache

    settings = gqa.DECODER
    cache = KVCache(settings, 3, 100, like=torch.zeros(1))
    cache.reserve(3, 100)
    assert cache_bytes(settings, 3, 100) == sum(x.numel() * x.element_size() for x in (cache.k, cache.v))


def test_speeds_are_measured_in_turns() -> None:
    speeds = tokens_per_second({"a": gqa.DECODER, "b": with_kv_heads(gqa.DECODER, 8)}, (1, 2), (8,), repeats=2)
    assert set(speeds) == {(name, 8, rows) for name in "ab" for rows in (1, 2)}
    assert all(len(turns) == 2 and min(turns) > 0 for turns in speeds.values())


def test_position_losses_see_what_the_context_holds() -> None:
    model = small_model(max_seq_len=8)
    documents = [torch.randint(50, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 8, 9, 20)]
    found = position_losses(model, documents, until=16)
    for ids, loss in zip(documents, found):
        assert len(loss) == min(len(ids), 16) - 1
        for p in range(1, min(len(ids), 16)):
            seen = torch.tensor(ids[max(0, p + 1 - 8) : p]) if p >= 8 else torch.tensor(ids[:p])
            with torch.no_grad():
                logp = model(seen[None])[0, -1].log_softmax(-1)[ids[p]]
            assert loss[p - 1] == pytest.approx(-float(logp), abs=1e-4)


def test_losses_are_nats_per_character(lab: Lab) -> None:
    data = lab.data()
    base = lab.base(data)
    values = losses(base, data)
    texts = list(read_texts(data / "corpus_heldout" / "arithmetic.jsonl"))
    assert set(values["loss arithmetic"]) == {f"arithmetic {i}" for i in range(len(texts))}
    assert len(values["loss"]) == sum(len(v) for name, v in values.items() if name != "loss")
    from ayni.model.checkpoint import load_model

    model, tokenizer = load_model(base), load_tokenizer(base)
    ids = [tokenizer.bos_id, *tokenizer.encode(texts[0])]
    with torch.no_grad():
        logp = model(torch.tensor([ids]))[0].log_softmax(-1)
    naive = -sum(float(logp[t, ids[t + 1]]) for t in range(len(ids) - 1)) / len(texts[0])
    assert values["loss arithmetic"]["arithmetic 0"] == pytest.approx(naive, rel=1e-4)


def test_right_is_a_share_of_the_answers(lab: Lab) -> None:
    data = lab.data()
    rows = read_prompts(data / "prompts_eval.jsonl")[:6]
    shares = right(lab, data, lab.sft(data, lab.base(data)), rows, samples=4)
    assert list(shares) == [row["id"] for row in rows]
    assert set(shares.values()) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_few_curated_and_few_noisy_are_the_same_prompts(lab: Lab, tmp_path: Path) -> None:
    data = lab.data()
    clean, noisy = (
        few(data / f"{name}.jsonl", 4, tmp_path / name, seed=3).path / CHATS for name in ("sft_clean", "sft")
    )
    prompts = [[row["messages"][:-1] for row in read_chats(path)] for path in (clean, noisy)]
    assert prompts[0] == prompts[1]
    assert len(prompts[0]) == len(read_jsonl(data / "sft.jsonl")) // 4
    assert read_jsonl(clean) != read_jsonl(noisy)
