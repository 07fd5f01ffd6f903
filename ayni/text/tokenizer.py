"""Tokenizers: training ours (paper 2.1: SentencePiece BPE, single digits, unknown UTF-8 as bytes) and loading anyone's.

A tokenizer turns *text* into ids and never reads a marker out of it: `<s>`, `[INST]` or `<|im_start|>` typed by a user are
ordinary characters. Only the dialogue format (dialogue.py) places special ids, through `piece_id`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from ayni.text.hf_tokenizer import hugging_face_files

CONTROL_SYMBOLS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
         "chat_template.jinja")  # fmt: skip
LONGEST_LINE = 250_000  # characters: SentencePiece skips longer sentences without a word


class Tokenizer:
    """Text to ids and back. Made by `train_tokenizer` and `load_tokenizer`."""

    def __init__(
        self,
        files: dict[str, bytes],
        specials: dict[str, int],
        encode: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        plain_piece_id: Callable[[str], int | None],
        vocab_size: int,
        bos_id: int,
        eos_id: int,
        pad_id: int | None,
    ) -> None:
        self.files = files
        self.specials = specials
        self._special_ids = set(specials.values())
        self._encode = encode
        self._decode = decode
        self._plain_piece_id = plain_piece_id
        self.vocab_size = vocab_size
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = pad_id if pad_id != eos_id else None
        self.dialogue = "chatml" if "<|im_start|>" in specials else "llama2"
        main = "tokenizer.model" if "tokenizer.model" in files else "tokenizer.json"
        self.hash = hashlib.sha256(files[main]).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: no BOS or EOS, and markers inside stay text. Lone surrogates become U+FFFD."""
        return self._encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special tokens and ids beyond the vocabulary (a padded embedding's) are silent."""
        return self._decode([i for i in ids if i < self.vocab_size and i not in self._special_ids])

    def piece_id(self, piece: str) -> int | None:
        """Id of a control or special token such as `[INST]` (or of a byte piece such as `<0x5B>`); None if there is none."""
        return self.specials.get(piece, self._plain_piece_id(piece) if piece.startswith("<0x") else None)

    def save(self, directory: Path) -> None:
        """Writes the files it was loaded from, byte for byte."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """SentencePiece skips sentences with tabs or beyond a length silently; newlines and tabs are byte pieces anyhow."""
    for text in texts:
        for line in re.split(r"[\n\t\0]", text):
            for start in range(0, len(line), LONGEST_LINE):
                yield line[start : start + LONGEST_LINE]


def train_tokenizer(
    texts: Iterable[str], out_dir: Path, vocab_size: int, seed: int = 0, max_lines: int = 2_000_000
) -> Tokenizer:
    """SentencePiece BPE as in the paper (2.1), on at most `max_lines` lines drawn by `seed`; same texts, same bytes.

    Paper silent, taken from the released tokenizer: identity normalisation, extra whitespace kept, ids 0/1/2 = unknown,
    BOS, EOS. Ours: id 3 = padding (not EOS: TRAPS 10) and the dialogue markers as control symbols, one id each, which
    no text can produce. Writes `tokenizer.model` and, for transformers and vLLM, `tokenizer.json` with a chat template.
    """
    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            split_digits=True,
            byte_fallback=True,
            character_coverage=0.99995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * LONGEST_LINE,
            input_sentence_size=max_lines,
            shuffle_input_sentence=True,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            control_symbols=list(CONTROL_SYMBOLS),
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"the tokenizer could not be trained with vocab_size {vocab_size}: {error}. "
            "Give more text or change tokenizer.vocab_size"
        ) from None
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "tokenizer.model").write_bytes(model.getvalue())
    for name, data in hugging_face_files(model.getvalue()).items():
        (out_dir / name).write_bytes(data)
    return load_tokenizer(out_dir)


def load_tokenizer(directory: Path) -> Tokenizer:
    """`tokenizer.model` (SentencePiece) if there is one, else `tokenizer.json` (Hugging Face tokenizers)."""
    directory = Path(directory)
    files = {name: (directory / name).read_bytes() for name in FILES if (directory / name).is_file()}
    if "tokenizer.model" not in files and "tokenizer.json" not in files:
        raise ValueError(f"{directory}: no tokenizer here; expected tokenizer.model (SentencePiece) or tokenizer.json")
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if name in files:
            try:
                config |= json.loads(files[name])
            except ValueError as error:
                raise ValueError(f"{directory / name}: not JSON ({error})") from None
    load = _load_sentencepiece if "tokenizer.model" in files else _load_tokenizers
    return load(directory, files, config)


def _named(config: dict[str, Any], key: str) -> str | None:
    """`"eos_token": "</s>"` and `"eos_token": {"content": "</s>", ...}` are both in use."""
    value = config.get(key)
    return value["content"] if isinstance(value, dict) else value


def _added(files: dict[str, bytes], config: dict[str, Any]) -> dict[str, int]:
    """Special tokens that a checkpoint added beside its SentencePiece model."""
    added = {entry["content"]: int(number) for number, entry in config.get("added_tokens_decoder", {}).items()}
    return json.loads(files.get("added_tokens.json", b"{}")) | added


def _load_sentencepiece(directory: Path, files: dict[str, bytes], config: dict[str, Any]) -> Tokenizer:
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(files["tokenizer.model"])
    except RuntimeError:
        raise ValueError(
            f"{directory / 'tokenizer.model'}: not a SentencePiece model (truncated, or another library's format)"
        ) from None
    specials = _added(files, config)
    specials |= {pieces.IdToPiece(i): i for i in range(pieces.GetPieceSize()) if pieces.IsControl(i)}
    pad = specials.get(_named(config, "pad_token") or "", pieces.pad_id())

    def byte_piece(piece: str) -> int | None:
        number = pieces.PieceToId(piece)
        return None if number == pieces.unk_id() else number

    size = pieces.GetPieceSize()
    mark = [pieces.PieceToId(f"<0x{byte:02X}>") for byte in "▁".encode()]
    newline = pieces.EncodeAsIds("\n")

    def encode(text: str) -> list[int]:
        """SentencePiece reads a typed U+2581 as a space; its three byte pieces keep it what it is."""
        first, *others = text.split("▁")
        ids = pieces.EncodeAsIds(first)
        for other in others:
            ids += mark + pieces.EncodeAsIds("\n" + other)[len(newline) :]
        return ids

    return Tokenizer(
        files=files,
        specials=specials,
        encode=encode if byte_piece("<0xE2>") is not None else pieces.EncodeAsIds,
        decode=lambda ids: pieces.DecodeIds([i for i in ids if i < size]),
        plain_piece_id=byte_piece,
        vocab_size=max([size, *(i + 1 for i in specials.values())]),
        bos_id=pieces.bos_id(),
        eos_id=pieces.eos_id(),
        pad_id=None if pad < 0 else pad,
    )


def _load_tokenizers(directory: Path, files: dict[str, bytes], config: dict[str, Any]) -> Tokenizer:
    import tokenizers

    path = directory / "tokenizer.json"
    try:
        content = json.loads(files["tokenizer.json"])
        full = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
        # Without its added tokens the same tokenizer reads every marker as plain characters.
        plain = tokenizers.Tokenizer.from_str(json.dumps(content | {"added_tokens": [], "post_processor": None}))
    except Exception as error:
        raise ValueError(f"{path}: not a tokenizer that the tokenizers library reads ({error})") from None
    specials = {entry["content"]: entry["id"] for entry in content.get("added_tokens", []) if entry["special"]}

    def named(key: str, *guesses: str) -> int | None:
        for name in (_named(config, key), *guesses):
            if name is not None and (number := full.token_to_id(name)) is not None:
                return number
        return None

    eos = named("eos_token", "<|im_end|>", "</s>", "<|endoftext|>")
    if eos is None:
        raise ValueError(f"{path}: no end-of-sequence token; name it as eos_token in tokenizer_config.json")
    bos = named("bos_token", "<|im_start|>", "<s>", "<|endoftext|>")
    pad = named("pad_token")
    return Tokenizer(
        files=files,
        specials=specials,
        encode=lambda text: plain.encode(text, add_special_tokens=False).ids,
        decode=lambda ids: full.decode(ids, skip_special_tokens=False),
        plain_piece_id=full.token_to_id,
        vocab_size=max(full.get_vocab(with_added_tokens=True).values()) + 1,
        bos_id=eos if bos is None else bos,
        eos_id=eos,
        # Many chat checkpoints pad with EOS; ours never (TRAPS 10), so their unknown token stands in.
        pad_id=pad if pad is not None and pad != eos else named("unk_token", "<|endoftext|>", "<unk>"),
    )
