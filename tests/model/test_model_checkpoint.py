from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification

from ayni.model import ScalarHead, Transformer
from ayni.model.checkpoint import check_vocabulary, is_scalar, load_model, load_scalar, read_settings, save_model
from ayni.text.tokenizer import Tokenizer

from .small import language_model, relative_error, scalar_model, settings, tokens


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4], ids=["MQA", "GQA", "MHA"])
def test_transformers_computes_the_same_logits(
    tmp_path: Path, tokenizer: Tokenizer, n_kv_heads: int, tied: bool
) -> None:
    model = language_model(n_kv_heads, tied)
    save_model(model, tmp_path, tokenizer)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    x = tokens(3, 40)
    with torch.no_grad():
        assert relative_error(model(x), theirs(x).logits) < 1e-5


def test_head_width_and_rope_base_are_carried_over(tmp_path: Path) -> None:
    model = language_model(head_dim=16, rope_theta=500.0, norm_eps=1e-3)
    save_model(model, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    x = tokens(2, 40)
    with torch.no_grad():
        assert relative_error(model(x), theirs(x).logits) < 1e-5


def test_transformers_computes_the_same_scores(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Of rows of unequal length, padded: the score stands at the last real token (TRAPS 12)."""
    model = scalar_model()
    save_model(model, tmp_path, tokenizer)
    theirs = LlamaForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    x = tokens(3, 20)
    lengths = [20, 7, 13]
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        wanted = theirs(x.where(mask, tokenizer.pad_id), attention_mask=mask.long()).logits[:, 0]
        found = model(x)[torch.arange(3), torch.tensor(lengths) - 1]
    assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 50_000], ids=["one file", "shards"])
def test_save_and_load_give_the_same_model(tmp_path: Path, tied: bool, shard_bytes: int) -> None:
    model = language_model(tied=tied)
    save_model(model, tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_bytes == 50_000)
    loaded = load_model(tmp_path)
    assert loaded.settings == model.settings.model_copy(update={"head_dim": 12})
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert (loaded.output.weight is loaded.tok_embeddings.weight) == tied
    assert all(weight.requires_grad for weight in loaded.parameters())
    x = tokens(2, 9)
    assert torch.equal(loaded(x), model(x))
    assert load_model(tmp_path, torch.bfloat16)(x).dtype == torch.bfloat16


def test_scalar_round_trip(tmp_path: Path) -> None:
    model = scalar_model()
    save_model(model, tmp_path)
    x = tokens(2, 9)
    assert is_scalar(tmp_path)
    assert torch.equal(load_scalar(tmp_path)(x), model(x))


def test_scalar_head_on_a_tied_model(tmp_path: Path) -> None:
    model = ScalarHead.from_language_model(language_model(tied=True))
    torch.nn.init.ones_(model.score.weight)
    save_model(model, tmp_path)
    x = tokens(2, 9)
    assert torch.equal(load_scalar(tmp_path)(x), model(x))
    theirs = LlamaForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        assert relative_error(model(x[:1])[:, -1], theirs(x[:1]).logits[:, 0]) < 1e-5


def test_equal_models_give_equal_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name in ("a", "b"):
        save_model(language_model(), tmp_path / name, tokenizer)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json"} <= set(
        files
    )
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_state_given_from_outside_is_what_is_written(tmp_path: Path) -> None:
    model = language_model()
    with torch.device("meta"):
        shell = Transformer(model.settings)
    save_model(shell, tmp_path, state=model.state_dict())
    assert torch.equal(load_model(tmp_path).layers[1].feed_forward.w2.weight, model.layers[1].feed_forward.w2.weight)


def test_a_loaded_model_does_not_change_with_its_file(tmp_path: Path) -> None:
    save_model(language_model(), tmp_path)
    loaded = load_model(tmp_path)
    before = [weight.sum().item() for weight in loaded.parameters()]
    size = (tmp_path / "model.safetensors").stat().st_size
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.write(b"\x01" * size)
    assert [weight.sum().item() for weight in loaded.parameters()] == before


def test_trap_10_pad_is_not_eos_in_what_we_write(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(language_model(), tmp_path, tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert config["pad_token_id"] == generation["pad_token_id"] == 3
    assert config["eos_token_id"] == 2
    assert generation["eos_token_id"] == [2]
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id == 3


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 50_000], ids=["one file", "shards"])
def test_truncated_safetensors_is_one_clear_error(tmp_path: Path, shard_bytes: int) -> None:
    save_model(language_model(), tmp_path, shard_bytes=shard_bytes)
    victim = sorted(tmp_path.glob("*.safetensors"))[-1]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(ValueError, match="truncated or not a safetensors file") as error:
        load_model(tmp_path)
    assert victim.name in str(error.value)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    save_model(language_model(), tmp_path, shard_bytes=50_000)
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(ValueError, match=rf"{victim.name}: missing"):
        load_model(tmp_path)


CONFIG_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM.*supported: LlamaForCausalLM"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "RoPE scaling 'yarn' is not supported"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "_freq_factor' is missing"),
    ({"head_dim": 7}, "a head is 7 wide; RoPE turns pairs"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    (
        {"intermediate_size": 96},
        r"model.safetensors: tensor model.layers.0.mlp.(down|gate)_proj.weight.*(\(48, 96\)|\(96, 48\)), found (\(48, 80\)|\(80, 48\))",
    ),
    ({"num_hidden_layers": 3}, r"tensor model.layers.2.* is missing \(9 in all\)"),
    ({"num_hidden_layers": 1}, "tensor model.layers.1.* is not part of the model"),
]


@pytest.mark.parametrize(("change", "says"), CONFIG_MISTAKES, ids=lambda value: str(value)[:30])
def test_config_that_does_not_fit(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    save_model(language_model(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=says):
        load_model(tmp_path)


def test_missing_key_wrong_kind_and_no_model(tmp_path: Path) -> None:
    save_model(language_model(), tmp_path)
    with pytest.raises(ValueError, match="this is a LlamaForCausalLM, expected a LlamaForSequenceClassification"):
        load_scalar(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["hidden_size"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json: 'hidden_size' is missing"):
        read_settings(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        read_settings(tmp_path)
    with pytest.raises(ValueError, match=r"absent.config\.json: missing"):
        read_settings(tmp_path / "absent")


def test_config_of_transformers_5_and_older_ones(tmp_path: Path) -> None:
    save_model(language_model(rope_theta=500.0), tmp_path)
    LlamaForCausalLM.from_pretrained(tmp_path).config.save_pretrained(tmp_path / "new")
    assert read_settings(tmp_path / "new") == read_settings(tmp_path)
    assert read_settings(tmp_path).rope_theta == 500.0


def test_wrong_vocabulary(tokenizer: Tokenizer) -> None:
    check_vocabulary(settings(), tokenizer, "here")
    check_vocabulary(settings(vocab_size=304), tokenizer, "padded to a multiple of 16")
    for size in (299, 400):
        with pytest.raises(ValueError, match=f"models/a: the model has {size} embeddings, the tokenizer 300 ids"):
            check_vocabulary(settings(vocab_size=size), tokenizer, "models/a")
