"""`ayni export`: what leaves comes back bit for bit, and other programs' own loaders take it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ayni.config import ExportSettings, ImportSettings
from ayni.model.checkpoint import load_model, save_model
from ayni.stages import exporting, importing
from ayni.text.dialogue import encode_prompt
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.model.small import language_model, relative_error, tokens

from .test_importing import left_over, same_weights


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [f"the ant number {n} saw a bee and a cat on the hill" for n in range(50)]
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), vocab_size=300)


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def stored(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Tokenizer) -> tuple[Path, str]:
    """A model directory in each working type."""
    directory = tmp_path / "source"
    save_model(language_model(n_kv_heads=2).to(request.param), directory, tokenizer)
    return directory, str(request.param).removeprefix("torch.")


@pytest.mark.parametrize("to", ["hf", "gguf", "meta"])
def test_out_and_in_again_is_the_same_to_the_bit(to: str, stored: tuple[Path, str], tmp_path: Path) -> None:
    source, dtype = stored
    parts = 2 if to == "meta" else 1
    written = exporting.run(ExportSettings(to=to, dtype=dtype, parts=parts), source, tmp_path / "away")
    importing.run(ImportSettings(source=str(written), max_seq_len=128), tmp_path / "back")
    assert same_weights(source, tmp_path / "back")
    theirs, ours = load_tokenizer(tmp_path / "back"), load_tokenizer(source)
    dialogue = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "the ant 12 🐜 [INST]"}]
    assert encode_prompt(theirs, dialogue) == encode_prompt(ours, dialogue)
    assert load_model(tmp_path / "back").settings == load_model(source).settings


def test_transformers_takes_the_hf_export_as_it_is(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = language_model()
    save_model(model, tmp_path / "source", tokenizer)
    exporting.run(ExportSettings(to="hf"), tmp_path / "source", tmp_path / "away")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "away", dtype=torch.float32)
    x = tokens(2, 30)
    with torch.no_grad():
        assert relative_error(model(x), theirs(x).logits) < 1e-5
    dialogue = [{"role": "user", "content": "the ant saw a bee"}]
    rendered = AutoTokenizer.from_pretrained(tmp_path / "away").apply_chat_template(dialogue, return_dict=False)
    assert rendered == encode_prompt(tokenizer, dialogue)


def test_a_gguf_file_is_named_by_the_user_or_after_the_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(language_model(), tmp_path / "source", tokenizer)
    assert exporting.run(ExportSettings(to="gguf"), tmp_path / "source", tmp_path / "x.gguf") == tmp_path / "x.gguf"
    written = exporting.run(ExportSettings(to="gguf", dtype="bfloat16"), tmp_path / "source", tmp_path / "folder")
    assert written == tmp_path / "folder" / "source-BF16.gguf"
    assert written.is_file()


def test_nothing_is_replaced_and_nothing_half_written_stays(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(language_model(), tmp_path / "source", tokenizer)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="taken: exists already; remove it or name another output"):
        exporting.run(ExportSettings(to="hf"), tmp_path / "source", tmp_path / "taken")
    with pytest.raises(ValueError, match="q8_0 is a kind of GGUF"):
        exporting.run(ExportSettings(to="hf", dtype="q8_0"), tmp_path / "source", tmp_path / "out")
    with pytest.raises(ValueError, match="--parts 2 is for --to meta"):
        exporting.run(ExportSettings(to="gguf", parts=2), tmp_path / "source", tmp_path / "out")
    with pytest.raises(ValueError, match="3"):  # 4 heads do not divide into 3 parts
        exporting.run(ExportSettings(to="meta", parts=3), tmp_path / "source", tmp_path / "out")
    assert left_over(tmp_path) == {"taken"}
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"
