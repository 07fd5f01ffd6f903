"""llama2.c's `tokenizer.bin`: a SentencePiece model's pieces and scores, without their kinds.

Layout, little-endian: int32 longest piece in bytes, then for every id a float32 score, an int32 length and that many
bytes. llama2.c's exporter has replaced U+2581 by a space, and written BOS and EOS as "\\n<s>\\n" and "\\n</s>\\n".
"""

from __future__ import annotations

import re
import struct

from ayni.text.hf_tokenizer import hugging_face_files
from ayni.text.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, sentencepiece_model

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
UNK_ID, BOS_ID, EOS_ID = 0, 1, 2
FIRST = {UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}


def files_from_llama2c(data: bytes, vocab_size: int, where: str) -> dict[str, bytes]:
    """`tokenizer.model` and its companions, which give the ids of the SentencePiece model that the file was made from.

    `vocab_size` is the weights' (the file does not hold its own); `where` names the file in errors.
    """
    pieces, scores = _entries(data, vocab_size, where)
    for number, name in FIRST.items():
        if number >= vocab_size or pieces[number].strip("\n") != name:
            found = pieces[number] if number < vocab_size else "nothing"
            raise ValueError(f"{where}: entry {number} is {found!r}, expected {name!r}: not a llama2.c tokenizer")
        pieces[number] = name
    try:
        model = sentencepiece_model(
            pieces, scores, _types(pieces), unk_id=UNK_ID, bos_id=BOS_ID, eos_id=EOS_ID, add_dummy_prefix=True
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return {"tokenizer.model": model} | hugging_face_files(model)


def _entries(data: bytes, vocab_size: int, where: str) -> tuple[list[str], list[float]]:
    pieces, scores = [], []
    position = 4
    for number in range(vocab_size):
        if position + 8 > len(data):
            raise ValueError(
                f"{where}: ends after {number} of the {vocab_size} entries that the weights have: truncated, or another "
                "model's tokenizer"
            )
        score, length = struct.unpack_from("<fi", data, position)
        piece = data[position + 8 : position + 8 + length]
        position += 8 + length
        if length < 0 or len(piece) < length:
            raise ValueError(f"{where}: entry {number} has length {length}: truncated, or not a llama2.c tokenizer")
        try:
            pieces.append(piece.decode().replace(" ", "▁"))
        except UnicodeDecodeError:
            raise ValueError(f"{where}: entry {number} is {piece!r}, not UTF-8: not a llama2.c tokenizer") from None
        scores.append(score)
    if position != len(data):
        raise ValueError(
            f"{where}: {len(data) - position} bytes remain after the {vocab_size} entries that the weights have: "
            "another model's tokenizer"
        )
    return pieces, scores


def _types(pieces: list[str]) -> list[int]:
    """SentencePiece numbers the meta symbols first, then the byte pieces, then what it learned."""
    is_byte = [BYTE_PIECE.fullmatch(piece) is not None for piece in pieces]
    first_learned = is_byte.index(True) if any(is_byte) else len(FIRST)
    kinds = [BYTE if byte else NORMAL for byte in is_byte]
    kinds[:first_learned] = [CONTROL] * first_learned
    kinds[UNK_ID] = UNKNOWN
    return kinds
