"""The two libraries that turn text into ids, behind one set of functions: sentencepiece and tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import sentencepiece

from ayni.text.native import MARKERS
from ayni.text.words import apart_in_sentencepiece, apart_in_tokenizers

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LLAMA_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast")


@dataclass(frozen=True)
class Backend:
    encode: Callable[[str], list[int]]  # special tokens in the text stay text; added ones are read
    encode_all: Callable[[list[str]], list[list[int]]]  # the same for many, on all cores
    words_apart: Callable[[], bool]  # whether words can be encoded one by one (words.py)
    decode: Callable[[list[int]], str]
    plain_piece_id: Callable[[str], int | None]
    starts_with_space: Callable[[], bool]
    space_after_specials: bool  # whether text behind a special token starts with a space too
    specials: dict[str, int]
    added: dict[str, int]  # beside the model, not special
    special_patterns: list[str]  # regular expressions: a special token with the white space that it swallows
    named: dict[str, str]
    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int | None


def sentencepiece_backend(directory: Path, files: dict[str, bytes], config: dict[str, Any]) -> Backend:
    """`tokenizer.model`, with the tokens that a checkpoint added beside it."""
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(files["tokenizer.model"])
    except RuntimeError:
        raise ValueError(
            f"{directory / 'tokenizer.model'}: not a SentencePiece model (truncated, or another library's format)"
        ) from None
    size = pieces.GetPieceSize()
    ids = {"bos_token": pieces.bos_id(), "eos_token": pieces.eos_id(), "unk_token": pieces.unk_id()}
    named = {role: pieces.IdToPiece(i) for role, i in ids.items() if i >= 0} | _named(config)
    entries = _added_entries(files, config, named, size)
    specials = {entry["content"]: entry["id"] for entry in entries if entry["special"]}
    added = {entry["content"]: entry["id"] for entry in entries if not entry["special"] and entry["id"] >= size}
    specials |= {pieces.IdToPiece(i): i for i in range(size) if pieces.IsControl(i)}

    def byte_piece(piece: str) -> int | None:
        number = pieces.PieceToId(piece)
        return None if number == pieces.unk_id() else number

    # Special tokens that are no control pieces: SentencePiece would read them out of a text.
    readable = {p for p, i in specials.items() if i < size and not pieces.IsControl(i) and i != pieces.unk_id()}
    if set(MARKERS) <= set(specials):
        # SentencePiece reads a typed U+2581 as a space. The tokenizers we train give back every text as it was, so there
        # (and there alone: an imported model gets sentencepiece's ids to the letter) its byte pieces stand for it.
        readable.add("▁")
    readable = readable if byte_piece("<0xE2>") is not None else set()
    space_after_specials = _space_after_specials(files, config)
    encode, encode_all = _reader(pieces, readable, added, space_after_specials)
    return Backend(
        encode=encode,
        encode_all=encode_all,
        words_apart=lambda: apart_in_sentencepiece(
            files["tokenizer.model"], {*readable, *added}, bool(added) and space_after_specials
        ),
        decode=partial(_decode, pieces, {number: piece for piece, number in added.items()}),
        plain_piece_id=byte_piece,
        starts_with_space=lambda: "".join(pieces.EncodeAsPieces("\n")).startswith("▁"),
        space_after_specials=space_after_specials,
        specials=specials,
        added=added,
        special_patterns=_patterns(entries, specials),
        named=named,
        vocab_size=max([size, *(i + 1 for i in specials.values()), *(i + 1 for i in added.values())]),
        bos_id=specials.get(named.get("bos_token", ""), pieces.bos_id()),
        eos_id=specials.get(named.get("eos_token", ""), pieces.eos_id()),
        pad_id=pad if (pad := specials.get(named.get("pad_token", ""), pieces.pad_id())) >= 0 else None,
    )


def _reader(
    pieces: sentencepiece.SentencePieceProcessor, readable: set[str], added: dict[str, int], space_after_added: bool
) -> tuple[Callable[[str], list[int]], Callable[[list[str]], list[list[int]]]]:
    """SentencePiece's own encoding, but that `readable` strings are spelt in byte pieces and `added` ones are one id:
    for a text, and for many."""
    if not readable and not added:
        return pieces.EncodeAsIds, pieces.EncodeAsIds  # which takes a list, too
    either = re.compile(f"({'|'.join(map(re.escape, sorted({*readable, *added}, key=len, reverse=True)))})")
    newline = pieces.EncodeAsIds("\n")

    def read(text: str) -> list[int]:
        first, *others = either.split(text)
        ids: list[int] = pieces.EncodeAsIds(first)
        for found, following in zip(others[::2], others[1::2]):
            if found in added:
                ids.append(added[found])
            else:
                ids += [pieces.PieceToId(f"<0x{byte:02X}>") for byte in found.encode()]
            if found in added and space_after_added:
                ids += pieces.EncodeAsIds(following)
            else:
                ids += pieces.EncodeAsIds("\n" + following)[len(newline) :]
        return ids

    def read_all(texts: list[str]) -> list[list[int]]:
        mixed = [either.search(text) is not None for text in texts]
        plain = iter(pieces.EncodeAsIds([text for text, is_mixed in zip(texts, mixed) if not is_mixed]))
        return [read(text) if is_mixed else next(plain) for text, is_mixed in zip(texts, mixed)]

    return read, read_all


def _decode(pieces: sentencepiece.SentencePieceProcessor, added: dict[int, str], ids: list[int]) -> str:
    """SentencePiece drops the space that it put in front of a text, and only there."""
    size, text = pieces.GetPieceSize(), ""
    for is_beside, group in groupby(ids, key=lambda number: number >= size):
        run = list(group)
        if is_beside:
            text += "".join(added.get(number, "") for number in run)
        else:
            behind = text and pieces.IdToPiece(run[0]).startswith("▁")
            text += (" " if behind else "") + pieces.DecodeIds(run)
    return text


def tokenizers_backend(directory: Path, files: dict[str, bytes], config: dict[str, Any]) -> Backend:
    """`tokenizer.json`."""
    import tokenizers

    path = directory / "tokenizer.json"
    try:
        text = files["tokenizer.json"].decode()
        content = json.loads(text)
        pieces = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path}: not a tokenizer that the tokenizers library reads ({error})") from None
    pieces.encode_special_tokens = True  # that is: as the characters they are written in
    named = _named(config)
    entries = content.get("added_tokens", [])
    specials = {entry["content"]: entry["id"] for entry in entries if entry["special"]}

    def number_of(role: str, *guesses: str) -> int | None:
        for name in (named.get(role), *guesses):
            if name is not None and (number := pieces.token_to_id(name)) is not None:
                return number
        return None

    eos = number_of("eos_token", "<|im_end|>", "</s>", "<|endoftext|>")
    if eos is None:
        raise ValueError(f"{path}: no end-of-sequence token; name it as eos_token in tokenizer_config.json")
    bos = number_of("bos_token", "<|im_start|>", "<s>", "<|endoftext|>")
    pad = number_of("pad_token")
    special_ids = {number: piece for piece, number in specials.items()}
    words_apart = apart_in_tokenizers(content)

    def spelt(ids: list[int]) -> list[int]:
        """Some models (Unigram) have the special pieces among their ordinary ones: then they are spelt letter by letter."""
        if special_ids.keys().isdisjoint(ids):
            return ids
        letters = {
            i: [n for c in p for n in pieces.encode(c, add_special_tokens=False).ids] for i, p in special_ids.items()
        }
        return [number for token in ids for number in letters.get(token, [token])]

    def encode(text: str) -> list[int]:
        return spelt(pieces.encode(text, add_special_tokens=False).ids)

    def encode_all(texts: list[str]) -> list[list[int]]:
        if pieces.padding is not None:  # a batch would be padded to its longest text
            return [encode(text) for text in texts]
        return [spelt(found.ids) for found in pieces.encode_batch_fast(texts, add_special_tokens=False)]

    return Backend(
        encode=encode,
        encode_all=encode_all,
        words_apart=lambda: words_apart,
        decode=lambda ids: pieces.decode(ids, skip_special_tokens=False),
        plain_piece_id=pieces.token_to_id,
        starts_with_space=lambda: pieces.encode("\n", add_special_tokens=False).tokens[0].startswith("▁"),
        space_after_specials=_space_after_specials(files, config),
        specials=specials,
        added={entry["content"]: entry["id"] for entry in entries if not entry["special"]},
        special_patterns=_patterns(entries, specials),
        named=named,
        vocab_size=max(pieces.get_vocab(with_added_tokens=True).values()) + 1,
        bos_id=eos if bos is None else bos,
        eos_id=eos,
        # Many chat checkpoints pad with EOS; ours never (TRAPS 10), so their unknown token stands in.
        pad_id=pad if pad is not None and pad != eos else number_of("unk_token", "<|endoftext|>", "<unk>"),
    )


def _added_entries(
    files: dict[str, bytes], config: dict[str, Any], named: dict[str, str], size: int
) -> list[dict[str, Any]]:
    """Tokens that a checkpoint names beside its SentencePiece model: from added_tokens_decoder, else from the older
    added_tokens.json, else from tokenizer.json."""
    if "added_tokens_decoder" in config:
        return [entry | {"id": int(number)} for number, entry in config["added_tokens_decoder"].items()]
    if "added_tokens.json" in files:
        special = {*named.values(), *(_text(token) for token in config.get("additional_special_tokens") or [])}
        added: dict[str, int] = json.loads(files["added_tokens.json"])
        return [{"content": piece, "id": i, "special": piece in special} for piece, i in added.items()]
    text = files.get("tokenizer.json", b"").decode(errors="replace")
    start = re.search(r'"added_tokens":\s*', text)
    # The list alone: reading megabytes of vocabulary takes longer than everything else here.
    entries = json.JSONDecoder().raw_decode(text, start.end())[0] if start else []
    return [entry for entry in entries if entry["id"] >= size]


def _text(token: str | dict[str, Any]) -> str:
    """`"</s>"` and `{"content": "</s>", ...}` are both in use."""
    return token if isinstance(token, str) else str(token["content"])


def _named(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens that have a role, as chat templates call them."""
    return {role: _text(config[role]) for role in ROLES if config.get(role) is not None}


def _patterns(entries: list[dict[str, Any]], specials: dict[str, int]) -> list[str]:
    """Longest first, so that a token goes before those it begins with."""
    swallows = {entry["content"]: (entry.get("lstrip"), entry.get("rstrip")) for entry in entries}
    found = []
    for piece in sorted(specials, key=len, reverse=True):
        left, right = swallows.get(piece, (False, False))
        found.append((r"\s*" if left else "") + re.escape(piece) + (r"\s*" if right else ""))
    return found


def _space_after_specials(files: dict[str, bytes], config: dict[str, Any]) -> bool:
    """Whether text behind a special token gets SentencePiece's space as text at the beginning does: so it was in Meta's
    and the older ("legacy") Hugging Face tokenizers; LlamaTokenizer no longer does it by itself."""
    if config.get("tokenizer_class") in LLAMA_CLASSES:
        return bool(config.get("legacy", False))
    file = files.get("tokenizer.json")
    return file is None or re.search(rb'"type":\s*"Prepend"|"prepend_scheme":\s*"always"', file) is not None
