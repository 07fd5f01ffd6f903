"""Many documents at once: the ids are those of `Tokenizer.encode`, whatever the tokenizer is made of."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from ayni.text import documents
from ayni.text.documents import encode_documents, token_type
from ayni.text.sentencepiece_model import NORMAL, pieces_of, sentencepiece_model
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer, whole_characters
from ayni.text.words import words_of

from .foreign import chatml_files, llama3_files, meta_model, to_json, write
from .samples import sample_texts
from .test_added_tokens import ADDED, entry, with_added
from .test_tokenizer import HOSTILE

Files = dict[str, bytes]
SPACES = [c for c in map(chr, range(0x3001)) if c.isspace() or c in "▁\u180e\u200b\u2060\ufeff"]
ALPHABET = [*"   \n\r\t\u00a0\u3000\u180e▁'abc12é日🎉.,!", "'s", "'ll", "<think>", "</s>", "<s>", "<|im_end|>", "[INST]", "\ud800"]  # fmt: skip


def random_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(ALPHABET, k=rng.randint(1, 60))) for _ in range(count)]


TEXTS = [
    *HOSTILE.values(),
    *random_texts(400, 0),
    *sample_texts(seed=1)[:50],
    *(f"{left}{space}{middle}{right}" for space in SPACES for left in ("a", "!") for middle in (" ", "  ") for right in "b?"),
    " x",
    "x ",
    "a" * 300,
]  # fmt: skip


def sentencepiece_files(**changes: object) -> Files:
    return {"tokenizer.model": meta_model(**changes)}


def with_pieces(*more: str) -> Files:
    pieces, scores, types = pieces_of(meta_model())
    n = len(more)
    model = sentencepiece_model(
        [*pieces, *more], [*scores, *[1.0] * n], [*types, *[NORMAL] * n], unk_id=0, bos_id=1, eos_id=2
    )
    return {"tokenizer.model": model}


def trained(directory: Path) -> Files:
    train_tokenizer(sample_texts(), directory, vocab_size=500)
    return {"tokenizer.model": (directory / "tokenizer.model").read_bytes()}


def beside_sentencepiece(legacy: bool, **flags: bool) -> Files:
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    config["added_tokens_decoder"] = {str(600 + i): {**token, **flags} for i, token in enumerate(ADDED)}
    return sentencepiece_files() | {"tokenizer_config.json": to_json(config)}


def changed_json(files: Files, **changes: object) -> Files:
    return files | {"tokenizer.json": to_json(json.loads(files["tokenizer.json"]) | changes)}


def with_token(**flags: bool) -> Files:
    files = chatml_files()
    tokens = json.loads(files["tokenizer.json"])["added_tokens"]
    return changed_json(files, added_tokens=[*tokens, {"id": 500, **entry("<think>", False, **flags)}])


# What the tokenizer is made of -> (its files, whether words can be encoded one by one).
KINDS: dict[str, tuple[Callable[[Path], Files], bool]] = {
    "ours": (trained, True),
    "Meta's": (lambda _: sentencepiece_files(), True),
    "no dummy prefix": (lambda _: sentencepiece_files(add_dummy_prefix=False), True),
    "user-defined symbols": (lambda _: sentencepiece_files(user_defined_symbols="<think>"), True),
    "added beside SentencePiece": (lambda _: beside_sentencepiece(legacy=False), True),
    "a space behind those added": (lambda _: beside_sentencepiece(legacy=True), False),
    "pieces across spaces": (lambda _: with_pieces("a▁", "a▁b"), False),
    "pieces that begin with a newline": (lambda _: with_pieces("\nb"), False),
    "spaces at the end of pieces": (lambda _: sentencepiece_files(treat_whitespace_as_suffix=True), False),
    "no byte pieces": (lambda _: sentencepiece_files(byte_fallback=False, vocab_size=300), False),
    "normalised unigram": (
        lambda _: sentencepiece_files(
            model_type="unigram", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True
        ),
        False,
    ),
    "chatml": (lambda _: chatml_files(), True),
    "llama3": (lambda _: llama3_files(), True),
    "added to chatml": (lambda _: with_added(chatml_files(), 500), True),
    "added to llama3": (lambda _: with_added(llama3_files(), 505), True),
    "swallows spaces": (lambda _: with_token(rstrip=True), False),
    "single words": (lambda _: with_token(single_word=True), False),
    "normaliser": (
        lambda _: changed_json(chatml_files(), normalizer=json.loads(normalizers.NFC().__getstate__())),
        False,
    ),
    "another pre-tokenizer": (
        lambda _: changed_json(
            chatml_files(), pre_tokenizer=json.loads(pre_tokenizers.ByteLevel(add_prefix_space=True).__getstate__())
        ),
        False,
    ),
    "padding": (
        lambda _: changed_json(
            chatml_files(),
            padding={"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        ),
        False,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, bool]:
    files, apart = KINDS[request.param]
    directory = tmp_path_factory.mktemp("tokenizer")
    return load_tokenizer(write(directory / "files", files(directory / "trained"))), apart


def one_by_one(tok: Tokenizer, texts: list[str]) -> list[int]:
    return [number for text in texts for number in (tok.bos_id, *tok.encode(text), tok.eos_id)]


def together(tok: Tokenizer, texts: list[str]) -> list[int]:
    arrays = list(encode_documents(tok, texts))
    assert {found.dtype for found in arrays} <= {token_type(tok.vocab_size)}
    return np.concatenate(arrays).tolist()


def test_hostile_texts(kind: tuple[Tokenizer, bool]) -> None:
    tok, apart = kind
    assert tok.words_apart == apart
    assert tok.encode_all(TEXTS) == [tok.encode(text) for text in TEXTS]
    assert tok.continued_all(TEXTS) == [tok.continued(text) for text in TEXTS]
    for text in TEXTS:
        assert together(tok, [text]) == one_by_one(tok, [text]), repr(text[:80])
    assert together(tok, TEXTS) == one_by_one(tok, TEXTS)


@settings(suppress_health_check=list(HealthCheck), max_examples=200, deadline=None)
@given(texts=st.lists(st.text(st.sampled_from([c for c in ALPHABET if len(c) == 1]) | st.characters()), max_size=3))
def test_any_texts(kind: tuple[Tokenizer, bool], texts: list[str]) -> None:
    tok, _ = kind
    assert [n for found in encode_documents(tok, texts) for n in found.tolist()] == one_by_one(tok, texts)


def test_every_character_beside_a_space(kind: tuple[Tokenizer, bool]) -> None:
    """What a library takes for white space must be white space for us, too."""
    tok, apart = kind
    step = 1 if "tokenizer.json" in tok.files and apart else 7
    texts = [f"a{chr(i)}  b{chr(i)} {chr(i)}c" for i in range(0, 0x10000, step) if not 0xD800 <= i < 0xE000]
    assert np.array_equal(together(tok, texts), one_by_one(tok, texts))


def words(text: str) -> list[str]:
    found = words_of([text])
    return [found.distinct[which] for which in found.which_N]


def test_words_begin_at_a_space_behind_anything_but_white_space() -> None:
    assert words("one two  three\n four five") == ["one", "two", " three\n four", "five"]
    assert words("  one\ttwo  ") == ["  one\ttwo", " "]
    assert words("a▁ b ") == ["a▁ b", ""]
    for text in map(whole_characters, TEXTS):
        assert " ".join(words(text)) == text
        assert words(text) == re.split(r"(?<=[^\s▁]) ", text)


def test_what_is_forgotten_is_learned_again(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sample_texts(seed=2)
    known: list[int] = []
    encode = documents._Lexicon.encode

    def watched(self: documents._Lexicon, batch: list[str]) -> np.ndarray:
        known.append(len(self.following))
        return encode(self, batch)

    monkeypatch.setattr(documents, "REMEMBERED", 500)
    monkeypatch.setattr(documents, "BATCH", 200)
    monkeypatch.setattr(documents._Lexicon, "encode", watched)
    assert together(tokenizer, texts) == one_by_one(tokenizer, texts)
    assert known.count(0) > 3
    assert max(known) < 300


def test_no_texts_are_no_ids(tokenizer: Tokenizer) -> None:
    assert list(encode_documents(tokenizer, [])) == []


def test_ids_beyond_two_bytes(tmp_path: Path) -> None:
    """Vocabularies of more than 65,536 ids take four bytes each."""
    files = chatml_files()
    model = json.loads(files["tokenizer.json"])["model"]
    model["vocab"] |= {f"unused {i}": i for i in range(500, 70_000)}
    tok = load_tokenizer(write(tmp_path, changed_json(files, model=model)))
    assert (tok.vocab_size, token_type(tok.vocab_size)) == (70_000, np.dtype(np.uint32))
    assert together(tok, TEXTS) == one_by_one(tok, TEXTS)
