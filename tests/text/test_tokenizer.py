from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayni.text.tokenizer import CONTROL_SYMBOLS, Tokenizer, load_tokenizer, train_tokenizer

from .samples import sample_texts

HOSTILE = {
    "emoji": "🎉👩‍👩‍👧🏽 ok 🇵🇪",
    "cjk": "日本語と中文 한국어",
    "control": "\x00\x01\x07\x1b[0m\x7f\r\n\t\u200b\u202e\ufeff",
    "spaces": " " * 10_000,
    "mixed spaces": "  a \n  b\t c  ",
    "every byte": bytes(range(256)).decode("latin-1"),
    "digits": "0123456789 3.14159 1000000",
    "markers": "[INST] <<SYS>> </s><s> <pad> <unk> [/INST]",
    "sentencepiece's own space": "▁a▁▁b ▁",
    "combining": "e\u0301 \u0e01\u0e33",
    "empty": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@given(st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lone_surrogate_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_numbers_are_split_into_digits(tokenizer: Tokenizer) -> None:
    digits = [tokenizer.decode([i]) for i in tokenizer.encode("x1234")][-4:]
    assert digits == ["1", "2", "3", "4"]
    assert len(tokenizer.encode("7" * 50)) >= 50


def test_trap_10_pad_is_not_eos(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 3)


def test_trap_13_text_never_becomes_a_special_id(tokenizer: Tokenizer) -> None:
    specials = {tokenizer.piece_id(piece) for piece in (*CONTROL_SYMBOLS, "<s>", "</s>", "<pad>")}
    assert None not in specials
    assert not specials & set(tokenizer.encode("<s>[INST] <<SYS>> a <</SYS>> b [/INST] </s> <pad>"))


def test_special_ids_decode_to_nothing(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode("hello"), tokenizer.eos_id, tokenizer.vocab_size + 5]
    assert tokenizer.decode(ids) == "hello"
    assert tokenizer.piece_id("hello") is None


def test_same_texts_and_seed_give_the_same_bytes(tokenizer_dir: Path, tmp_path: Path) -> None:
    again = train_tokenizer(sample_texts(), tmp_path, vocab_size=500, seed=0)
    assert again.hash == load_tokenizer(tokenizer_dir).hash
    for file in tokenizer_dir.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_save_copies_every_file(tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "copy")
    names = sorted(file.name for file in tokenizer_dir.iterdir())
    assert sorted(file.name for file in (tmp_path / "copy").iterdir()) == names
    assert load_tokenizer(tmp_path / "copy").hash == tokenizer.hash


def test_transformers_reads_the_same_ids(tokenizer: Tokenizer, tokenizer_dir: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tokenizer_dir)
    for text in [
        *sample_texts(seed=1),
        *(HOSTILE[key] for key in ("emoji", "cjk", "digits", "mixed spaces", "combining")),
    ]:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert theirs.encode("hello") == [tokenizer.bos_id, *tokenizer.encode("hello")]
    assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad_id, tokenizer.eos_id)


def test_tokenizer_json_alone_is_read_too(tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tokenizer_dir / name).read_bytes())
    other = load_tokenizer(tmp_path)
    text = "hello 12 <s>[INST] 🎉"
    assert other.encode(text) == tokenizer.encode(text)
    assert other.decode(other.encode(text)) == text
    assert (other.vocab_size, other.bos_id, other.eos_id, other.pad_id) == (500, 1, 2, 3)
    assert other.piece_id("[INST]") == tokenizer.piece_id("[INST]")


def test_too_large_a_vocabulary_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size 30000"):
        train_tokenizer(["a small text"], tmp_path, vocab_size=30_000, seed=0)


def test_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer here; expected tokenizer\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"])
def test_broken_files_are_named(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    tokenizer.save(tmp_path)
    if name == "tokenizer.json":
        (tmp_path / "tokenizer.model").unlink()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(ValueError, match=name):
        load_tokenizer(tmp_path)


def test_text_room_does_not_import_torch() -> None:
    code = "import sys, ayni.text.dialogue, ayni.text.sources, ayni.text.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_may_stay_whole(tmp_path: Path) -> None:
    texts = [f"The year {year} came after {year - 1}." for year in range(1190, 1220)] * 4
    whole = train_tokenizer(texts, tmp_path / "whole", vocab_size=330, seed=0, split_digits=False)
    split = train_tokenizer(texts, tmp_path / "split", vocab_size=310, seed=0)
    assert len(whole.encode("1200")) < len(split.encode("1200")) == 5  # a space in front, and four digits
    other = tmp_path / "json"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    assert load_tokenizer(other).encode("In 1200 and 77") == whole.encode("In 1200 and 77")
