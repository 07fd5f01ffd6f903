"""Tokens that a checkpoint adds beside its model: special ones never come from text, the others do, as in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ayni.text.tokenizer import load_tokenizer

from .foreign import chatml_files, llama3_files, meta_model, to_json, write
from .test_tokenizer import HOSTILE

TEXTS = ["a<think>b c</think> d", "<think>", " <think> x<think><think>\n", "x <|pad|> y", *HOSTILE.values()]


def entry(content: str, special: bool, **flags: bool) -> dict[str, Any]:
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {**base, **flags, "content": content, "special": special}


ADDED = [entry("<think>", False), entry("</think>", False), entry("<|pad|>", True)]


def with_added(files: dict[str, bytes], first: int) -> dict[str, bytes]:
    content = json.loads(files["tokenizer.json"])
    content["added_tokens"] += [{"id": first + i, **token} for i, token in enumerate(ADDED)]
    return files | {"tokenizer.json": to_json(content)}


@pytest.mark.parametrize("name", ["llama3", "chatml"])
def test_tokenizer_json(name: str, tmp_path: Path) -> None:
    files = with_added(llama3_files(), 505) if name == "llama3" else with_added(chatml_files(), 500)
    tok, theirs = load_tokenizer(write(tmp_path, files)), AutoTokenizer.from_pretrained(tmp_path)
    specials = set(tok.specials.values())
    assert set(tok.added) == {"<think>", "</think>"}
    for text in TEXTS:
        # transformers' split_special_tokens=True: special ones are read as their characters.
        plain = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tok.encode(text) == plain, text[:60]
        assert tok.encode_marked(text) == theirs.encode(text, add_special_tokens=False), text[:60]
        assert not specials & set(tok.encode(text))
        assert tok.decode(tok.encode(text)) == text


SENTENCEPIECE = {
    "added_tokens_decoder": {"added_tokens_decoder": {str(600 + i): token for i, token in enumerate(ADDED)}},
    "added_tokens.json": {"pad_token": "<|pad|>"},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("source", SENTENCEPIECE)
def test_beside_a_sentencepiece_model(source: str, legacy: bool, tmp_path: Path) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, **names, **SENTENCEPIECE[source]}
    files = {"tokenizer.model": meta_model(), "tokenizer_config.json": to_json(config)}
    if source == "added_tokens.json":
        files[source] = to_json({token["content"]: 600 + i for i, token in enumerate(ADDED)})
    tok, theirs = load_tokenizer(write(tmp_path, files)), AutoTokenizer.from_pretrained(tmp_path)
    assert tok.vocab_size == 603
    assert tok.added == {"<think>": 600, "</think>": 601}
    # Without spaces that begin a stretch: transformers' LlamaTokenizer merges them with SentencePiece's.
    for text in ("a<think>b c</think>d e", "x <|pad|>y<think></think>"):
        assert tok.encode_marked(text) == theirs.encode(text, add_special_tokens=False), text
        assert 602 not in tok.encode(text)
    ids = tok.encode("a<think>b c</think>d<|pad|>e")
    assert ids.count(600) == ids.count(601) == 1
    spaced = " " if legacy else ""
    assert tok.decode(ids) == f"a<think>{spaced}b c</think>{spaced}d<|pad|>e"


def test_tokens_named_in_tokenizer_json_alone(tmp_path: Path) -> None:
    added = [{"id": 600 + i, **token} for i, token in enumerate(ADDED)]
    files = {"tokenizer.model": meta_model(), "tokenizer.json": to_json({"version": "1.0", "added_tokens": added})}
    tok = load_tokenizer(write(tmp_path, files))
    assert (tok.added, tok.specials["<|pad|>"]) == ({"<think>": 600, "</think>": 601}, 602)


def test_special_tokens_that_swallow_white_space(tmp_path: Path) -> None:
    files = llama3_files()
    content = json.loads(files["tokenizer.json"])
    content["added_tokens"].append({"id": 505, **entry("<|end|>", True, rstrip=True)})
    content["added_tokens"].append({"id": 506, **entry("<|mask|>", True, lstrip=True)})
    tok = load_tokenizer(write(tmp_path, files | {"tokenizer.json": to_json(content)}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a <|end|> \n b", "a \n<|mask|> b", "<|end|><|mask|>", "<|end|>  <|mask|>"):
        assert tok.encode_marked(text) == theirs.encode(text, add_special_tokens=False), text


def test_special_tokens_that_sentencepiece_itself_would_read(tmp_path: Path) -> None:
    """Fine-tunes declare a user-defined piece special: typed, it is spelt in bytes."""
    model = meta_model(user_defined_symbols="<|im_end|>")
    config = {"added_tokens_decoder": {"3": entry("<|im_end|>", True)}, "eos_token": "<|im_end|>"}
    tok = load_tokenizer(write(tmp_path, {"tokenizer.model": model, "tokenizer_config.json": to_json(config)}))
    assert tok.eos_id == 3
    assert 3 not in tok.encode("a <|im_end|> b")
    assert tok.decode(tok.encode("a <|im_end|> b")) == "a <|im_end|> b"
    assert tok.encode_marked("a<|im_end|>")[-1] == 3
