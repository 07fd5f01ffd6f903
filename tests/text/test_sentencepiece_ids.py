"""SentencePiece models, ours and rebuilt ones, against sentencepiece itself (and transformers) on hostile text."""

from __future__ import annotations

import random
import struct
from functools import partial
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from ayni.text.gguf_tokenizer import files_from_gguf, gguf_fields
from ayni.text.hf_tokenizer import hugging_face_files
from ayni.text.llama2c_tokenizer import files_from_llama2c
from ayni.text.sentencepiece_model import parsed, pieces_of, sentencepiece_model
from ayni.text.tokenizer import Tokenizer, load_tokenizer

from .foreign import meta_model, write
from .samples import sample_texts
from .test_tokenizer import HOSTILE

ALPHABET = [*" \n\tabc12é日🎉▁", "<s>", "</s>", "[INST]", "<tool>"]


def random_texts(count: int = 200) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(ALPHABET, k=60)) for _ in range(count)]


TEXTS = [
    *HOSTILE.values(),
    *random_texts(),
    *sample_texts(seed=1)[:50],
    " x",
    "\n\n x",
    "a" * 99,
    *map(chr, range(256)),
]
WITHOUT_UNK = [text.replace("<unk>", "") for text in TEXTS]  # which transformers reads as the unknown token
INVALID = [b"\xff", b"a\xff\xfeb", b"\xed\xa0\x80", b"\xc3", b"ok \xf0\x9f\x8e", bytes(range(256)), b"\xef\xbb\xbfx"]


def as_llama2c_exports(model: bytes) -> bytes:
    """llama2.c's tokenizer.py, naively."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokens, scores = [], []
    for i in range(pieces.vocab_size()):
        token = pieces.id_to_piece(i)
        if i == pieces.bos_id():
            token = "\n<s>\n"
        elif i == pieces.eos_id():
            token = "\n</s>\n"
        tokens.append(token.replace("▁", " ").encode("utf-8"))
        scores.append(pieces.get_score(i))
    data = struct.pack("I", max(map(len, tokens)))
    for token, score in zip(tokens, scores):
        data += struct.pack("fI", score, len(token)) + token
    return data


def loaded(files: dict[str, bytes], directory: Path) -> Tokenizer:
    return load_tokenizer(write(directory, files))


def through_gguf(model: bytes, directory: Path) -> dict[str, bytes]:
    return files_from_gguf(gguf_fields(loaded({"tokenizer.model": model}, directory / "source")), "m.gguf")


def through_llama2c(model: bytes, directory: Path) -> dict[str, bytes]:
    return files_from_llama2c(as_llama2c_exports(model), len(parsed(model).pieces), "tokenizer.bin")


def as_it_is(model: bytes, directory: Path) -> dict[str, bytes]:
    return {"tokenizer.model": model} | hugging_face_files(model)


KINDS = {
    "Meta's": partial(meta_model),
    "no dummy prefix": partial(meta_model, add_dummy_prefix=False),
    "user-defined symbols": partial(meta_model, user_defined_symbols="<tool>"),
    "unigram, normalised": partial(
        meta_model, model_type="unigram", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True
    ),
    "no byte pieces": partial(meta_model, byte_fallback=False, vocab_size=300),
}


@pytest.mark.parametrize("kind", KINDS)
def test_imported_models_give_sentencepieces_own_ids(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    tok = loaded({"tokenizer.model": model}, tmp_path)
    for text in TEXTS:
        assert tok.encode(text) == pieces.encode(text), repr(text[:80])
        assert tok.decode(tok.encode(text)) == pieces.decode(pieces.encode(text))
    if kind == "unigram, normalised":
        return  # its normaliser drops U+FFFD, and a string holds no invalid UTF-8 for it to tell apart
    for raw in INVALID:
        assert tok.encode(raw.decode("utf-8", "surrogateescape")) == pieces.encode(raw), raw


def test_the_tokenizers_we_train_give_sentencepieces_ids_but_for_its_own_space(
    tokenizer: Tokenizer, tokenizer_dir: Path
) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_dir / "tokenizer.model"))
    for text in TEXTS:
        if "▁" not in text:
            assert tokenizer.encode(text) == pieces.encode(text), repr(text[:80])
    assert pieces.decode(pieces.encode("a▁b")) == "a b"
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a▁b"


@pytest.mark.parametrize("rebuild", [through_gguf, through_llama2c], ids=["gguf", "llama2.c"])
@pytest.mark.parametrize("kind", ["Meta's", "no dummy prefix", "user-defined symbols"])
def test_rebuilt_models_give_the_originals_ids(kind: str, rebuild: object, tmp_path: Path) -> None:
    if rebuild is through_llama2c and kind != "Meta's":
        return  # the format holds neither
    model = KINDS[kind]()
    files = rebuild(model, tmp_path)  # type: ignore[operator]
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    again = sentencepiece.SentencePieceProcessor(model_proto=files["tokenizer.model"])
    tok = loaded(files, tmp_path / "out")
    assert pieces_of(files["tokenizer.model"]) == pieces_of(model)
    assert (tok.bos_id, tok.eos_id, tok.pad_id, tok.vocab_size) == (1, 2, None, 600)
    for text in TEXTS:
        assert again.encode(text) == tok.encode(text) == pieces.encode(text), repr(text[:80])


def test_our_own_tokenizer_survives_llama2c(tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path) -> None:
    tok = loaded(through_llama2c((tokenizer_dir / "tokenizer.model").read_bytes(), tmp_path), tmp_path)
    assert {p: i for p, i in tok.specials.items() if p != "<unk>"} == tokenizer.specials
    assert all(tok.encode(text) == tokenizer.encode(text) for text in TEXTS)


@pytest.mark.parametrize("config", [b"", b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'])
@pytest.mark.parametrize("make", [as_it_is, through_gguf, through_llama2c], ids=["Meta", "gguf", "llama2.c"])
def test_transformers_reads_the_same_ids(make: object, config: bytes, tmp_path: Path) -> None:
    directory = write(tmp_path / "out", make(meta_model(), tmp_path))  # type: ignore[operator]
    if config:
        write(directory, {"config.json": config})
    tok, theirs = load_tokenizer(directory), AutoTokenizer.from_pretrained(directory)
    for text in WITHOUT_UNK:
        # transformers reads special tokens wherever they stand: that is what encode_marked is for.
        assert theirs.encode(text, add_special_tokens=False) == tok.encode_marked(text), repr(text[:80])
    assert theirs.encode("hello") == [1, *tok.encode("hello")]
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, None)
    for text in sample_texts(seed=2)[:10]:
        assert theirs.decode(tok.encode(text)) == text


def test_transformers_with_user_defined_symbols_differs_at_the_beginning_only(tmp_path: Path) -> None:
    directory = write(tmp_path, as_it_is(KINDS["user-defined symbols"](), tmp_path))
    tok, theirs = load_tokenizer(directory), AutoTokenizer.from_pretrained(directory)
    for text in WITHOUT_UNK:
        if not text.startswith((" ", "▁", "<tool>")):
            assert theirs.encode(text, add_special_tokens=False) == tok.encode_marked(text), repr(text[:80])


def test_models_that_are_not_taken(tmp_path: Path) -> None:
    unigram = loaded({"tokenizer.model": KINDS["unigram, normalised"]()}, tmp_path / "unigram")
    with pytest.raises(ValueError, match=r"tokenizer\.model is no BPE model"):
        gguf_fields(unigram)
    assert "tokenizer.json" not in hugging_face_files(unigram.files["tokenizer.model"])
    normalised = meta_model(normalization_rule_name="nmt_nfkc")
    with pytest.raises(ValueError, match=r"normalises text \(nmt_nfkc\)"):
        gguf_fields(loaded({"tokenizer.model": normalised}, tmp_path / "normalised"))
    pieces, scores, types = pieces_of(meta_model())
    with pytest.raises(ValueError, match="make no SentencePiece model"):
        sentencepiece_model([*pieces[:-1], pieces[5]], scores, types, unk_id=0, bos_id=1, eos_id=2)
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        pieces_of(b"not protobuf at all")


def test_broken_llama2c_files_are_named() -> None:
    data = as_llama2c_exports(meta_model())
    mistakes = {
        "entry 35 has length 6: truncated": (data[:500], 600),
        "ends after 600 of the 700 entries": (data, 700),
        "9 bytes remain after the 599 entries": (data, 599),
        "entry 0 is 'nothing', expected '<unk>'": (data[:4], 0),
        "entry 1 has length -1": (data[:4] + struct.pack("<fi", 0.0, 5) + b"<unk>" + struct.pack("<fi", 0.0, -1), 2),
        "entry 0 is b'.+', not UTF-8": (data[:4] + struct.pack("<fi", 0.0, 5) + b"\xff" * 5, 1),
        "entry 1 is 'x', expected '<s>'": (
            data[:4] + struct.pack("<fi", 0.0, 5) + b"<unk>" + struct.pack("<fi", 0.0, 1) + b"x",
            2,
        ),
    }
    for says, (broken, size) in mistakes.items():
        with pytest.raises(ValueError, match=rf"^t\.bin: {says}"):
            files_from_llama2c(broken, size, "t.bin")
