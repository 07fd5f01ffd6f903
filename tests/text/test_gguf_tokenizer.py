"""Byte-level BPE in GGUF metadata, in and out. SentencePiece's way through GGUF: test_sentencepiece_ids.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ayni.text.gguf_tokenizer import files_from_gguf, gguf_fields
from ayni.text.template import CHATML_TEMPLATE
from ayni.text.tokenizer import Tokenizer, load_tokenizer

from .foreign import TEMPLATES, chatml_files, llama3_files, write
from .test_sentencepiece_ids import TEXTS

SOURCES: dict[str, Callable[[], dict[str, bytes]]] = {
    "llama-bpe": lambda: llama3_files(TEMPLATES["llama3"]),
    "smollm": lambda: chatml_files(TEMPLATES["qwen"]),
    "gpt-2": lambda: with_gpt2_words(chatml_files(TEMPLATES["chatml"])),
}


def with_gpt2_words(files: dict[str, bytes]) -> dict[str, bytes]:
    """As older versions of the tokenizers library wrote it: without use_regex."""
    content = json.loads(files["tokenizer.json"])
    content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return files | {"tokenizer.json": json.dumps(content).encode()}


def loaded(files: dict[str, bytes], directory: Path) -> Tokenizer:
    return load_tokenizer(write(directory, files))


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return loaded(SOURCES[request.param](), tmp_path / request.param)


def test_there_and_back(source: Tokenizer, tmp_path: Path) -> None:
    fields = gguf_fields(source)
    assert f"{tmp_path / fields['tokenizer.ggml.pre']}".endswith(fields["tokenizer.ggml.pre"])
    back = loaded(files_from_gguf(fields, "m.gguf"), tmp_path / "back")
    for text in TEXTS:
        assert back.encode(text) == source.encode(text), repr(text[:80])
        assert back.encode_marked(text) == source.encode_marked(text), repr(text[:80])
        assert back.decode(back.encode(text)) == text
    assert (back.specials, back.vocab_size, back.template) == (source.specials, source.vocab_size, source.template)
    assert (back.bos_id, back.eos_id, back.pad_id) == (source.bos_id, source.eos_id, source.pad_id)
    assert gguf_fields(back) == fields


def test_transformers_reads_what_was_there(source: Tokenizer, tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(write(tmp_path / "source", source.files))
    ours = AutoTokenizer.from_pretrained(write(tmp_path / "back", files_from_gguf(gguf_fields(source), "m.gguf")))
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text), repr(text[:80])


def test_metadata_of_a_known_kind(tmp_path: Path) -> None:
    fields = gguf_fields(loaded(SOURCES["llama-bpe"](), tmp_path))
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "llama-bpe")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 505
    assert types == [1] * 500 + [3] * 5
    assert tokens[fields["tokenizer.ggml.bos_token_id"]] == "<|begin_of_text|>"
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == "<|eot_id|>"
    assert all(len(merge.split(" ")) == 2 for merge in fields["tokenizer.ggml.merges"])
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.chat_template"] == TEMPLATES["llama3"]


@pytest.fixture
def smollm(tmp_path: Path) -> dict[str, Any]:
    return gguf_fields(loaded(SOURCES["smollm"](), tmp_path / "smollm"))


def test_padding_is_not_eos(smollm: dict[str, Any], tmp_path: Path) -> None:
    eos = smollm["tokenizer.ggml.eos_token_id"]
    fields = smollm | {"tokenizer.ggml.padding_token_id": eos, "tokenizer.ggml.unknown_token_id": 0}
    assert loaded(files_from_gguf(fields, "m.gguf"), tmp_path).pad_id == 0


def test_chatml_where_the_file_brings_no_template(smollm: dict[str, Any], tmp_path: Path) -> None:
    del smollm["tokenizer.chat_template"]
    assert loaded(files_from_gguf(smollm, "m.gguf"), tmp_path).template == CHATML_TEMPLATE


def test_tokens_beside_the_vocabulary(tmp_path: Path) -> None:
    files = SOURCES["smollm"]()
    content = json.loads(files["tokenizer.json"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    content["added_tokens"] += [{"id": 500, "content": "<think>", **flags}]
    tok = loaded(files | {"tokenizer.json": json.dumps(content).encode()}, tmp_path / "source")
    fields = gguf_fields(tok)
    assert (fields["tokenizer.ggml.tokens"][500], fields["tokenizer.ggml.token_type"][500]) == ("<think>", 4)
    back = loaded(files_from_gguf(fields, "m.gguf"), tmp_path / "back")
    assert 500 in tok.encode("a<think> b")
    assert back.encode("a<think> b") == tok.encode("a<think> b")


def test_what_is_not_supported_is_said(smollm: dict[str, Any], tmp_path: Path) -> None:
    mistakes: dict[str, dict[str, Any]] = {
        "pre-tokenizer 'qwen2' is not supported; expected 'gpt2' with one of gpt-2, smollm, llama-bpe": {
            "tokenizer.ggml.pre": "qwen2"
        },
        "tokenizer 'bert' with": {"tokenizer.ggml.model": "bert"},
        "token_type has 2 entries, tokenizer.ggml.tokens has 500": {"tokenizer.ggml.token_type": [1, 1]},
        "eos_token_id is 500, but there are 500 tokens": {"tokenizer.ggml.eos_token_id": 500},
        "merges do not fit": {"tokenizer.ggml.merges": ["nothere neither"]},
    }
    for says, change in mistakes.items():
        with pytest.raises(ValueError, match=rf"^m\.gguf: .*{says}"):
            files_from_gguf(smollm | change, "m.gguf")
    for missing in ("tokens", "token_type", "merges"):
        fields = {key: value for key, value in smollm.items() if key != f"tokenizer.ggml.{missing}"}
        with pytest.raises(ValueError, match=rf"^m\.gguf: the metadata lacks 'tokenizer\.ggml\.{missing}'"):
            files_from_gguf(fields, "m.gguf")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("pre_tokenizer", {"type": "Whitespace"}, "GGUF has no name here for the pre-tokenizer .*Whitespace"),
        ("normalizer", {"type": "NFC"}, "with normalizer .*NFC"),
    ],
)
def test_tokenizers_that_gguf_cannot_hold(key: str, value: dict[str, Any], says: str, tmp_path: Path) -> None:
    files = SOURCES["smollm"]()
    content = json.loads(files["tokenizer.json"]) | {key: value}
    with pytest.raises(ValueError, match=says):
        gguf_fields(loaded(files | {"tokenizer.json": json.dumps(content).encode()}, tmp_path))
