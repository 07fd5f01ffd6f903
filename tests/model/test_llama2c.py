"""llama2.c's legacy checkpoints, written here as its export.py writes them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from torch import Tensor

from ayni.config import ModelSettings
from ayni.model.checkpoint import check, load_model, write_checkpoint
from ayni.model.llama2c import open_llama2c
from ayni.text.tokenizer import Tokenizer, load_tokenizer

from .interleaved import draw_meta_weights, meta_logits
from .small import relative_error, settings, tokens

PER_LAYER = ("attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm",
             "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")  # fmt: skip


def write_bin(path: Path, weights: dict[str, Tensor], s: ModelSettings) -> None:
    vocab = s.vocab_size if s.tie_embeddings else -s.vocab_size
    header = struct.pack("<7i", s.dim, s.ffn_dim, s.n_layers, s.n_heads, s.n_kv_heads, vocab, s.max_seq_len)
    names = ["tok_embeddings", *(f"layers.{i}.{kind}" for kind in PER_LAYER for i in range(s.n_layers)), "norm"]
    data = [weights[f"{name}.weight"].numpy().astype("<f4").tobytes() for name in names]
    data += [np.zeros((s.max_seq_len, s.d_head // 2), "<f4").tobytes()] * 2
    if not s.tie_embeddings:
        data.append(weights["output.weight"].numpy().astype("<f4").tobytes())
    path.write_bytes(header + b"".join(data))


def write_tokenizer_bin(path: Path, model: bytes) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    entries = []
    for i in range(pieces.GetPieceSize()):
        text = {1: "\n<s>\n", 2: "\n</s>\n"}.get(i, pieces.IdToPiece(i)).replace("▁", " ").encode()
        entries.append((pieces.GetScore(i), text))
    longest = max(len(text) for _, text in entries)
    body = b"".join(struct.pack("<fi", score, len(text)) + text for score, text in entries)
    path.write_bytes(struct.pack("<i", longest) + body)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False], ids=["shared classifier", "classifier of its own"])
def test_logits_and_ids_survive(tied: bool, n_kv_heads: int, tmp_path: Path, tokenizer: Tokenizer) -> None:
    s = settings(n_kv_heads, tied)
    weights = draw_meta_weights(s)
    write_bin(tmp_path / "stories.bin", weights, s)
    write_tokenizer_bin(tmp_path / "tokenizer.bin", tokenizer.files["tokenizer.model"])
    opened = open_llama2c(tmp_path / "stories.bin")
    assert opened.settings == s
    write_checkpoint(opened, tmp_path / "model")
    x = tokens(1, 40)[0]
    with torch.no_grad():
        assert relative_error(load_model(tmp_path / "model")(x[None])[0], meta_logits(weights, s, x)) < 1e-5
    loaded = load_tokenizer(tmp_path / "model")
    for text in ("the ant number 12 saw a bee", "  two  spaces\n\ttab é 🐜 中 <s> [INST]", ""):
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_a_tokenizer_that_lies_apart(tmp_path: Path, tokenizer: Tokenizer) -> None:
    s = settings(tied=True)
    (tmp_path / "a").mkdir()
    write_bin(tmp_path / "a" / "stories.bin", draw_meta_weights(s), s)
    assert open_llama2c(tmp_path / "a" / "stories.bin").tokenizer_files == {}
    tokenizer.save(tmp_path / "b")
    for given in (tmp_path / "b", tmp_path / "b" / "tokenizer.model"):
        files = open_llama2c(tmp_path / "a" / "stories.bin", given).tokenizer_files
        assert files["tokenizer.model"] == tokenizer.files["tokenizer.model"]
    with pytest.raises(ValueError, match="nowhere: no such file or directory"):
        open_llama2c(tmp_path / "a" / "stories.bin", tmp_path / "nowhere")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    s = settings(tied=True)
    path = tmp_path / "stories.bin"
    write_bin(path, draw_meta_weights(s), s)
    check(open_llama2c(path))
    whole = path.read_bytes()
    for data, says in (
        (whole[:-4], rf"asks for {len(whole):,} bytes, the file has {len(whole) - 4:,}: truncated"),
        (whole + b"\0", rf"the file has {len(whole) + 1:,}"),
        (whole[:10], "10 bytes; a llama2.c model begins with a header of 28"),
        (struct.pack("<I", 0x616B3432) + whole, "version 1 or 2; supported is the legacy format"),
        (struct.pack("<7i", 2, 1, 2**21, 1, 1, 1, 1), "its header asks for .* bytes, the file has 28"),
        (b"\xff" * 400, "its header reads .*not a llama2.c model"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=says):
            open_llama2c(path)
