"""SentencePiece's own file, put together from pieces and taken apart again: for formats that keep the pieces alone."""

from __future__ import annotations

from typing import Any, Literal

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made at run time

# SentencePiece's numbers for what a piece is; GGUF has taken them over.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2


def sentencepiece_model(
    pieces: list[str],
    scores: list[float],
    types: list[int],
    *,
    unk_id: int,
    bos_id: int,
    eos_id: int,
    pad_id: int = -1,
    add_dummy_prefix: bool = True,
    model_type: Literal["bpe", "unigram"] = "bpe",
) -> bytes:
    """A `tokenizer.model` with U+2581 for spaces in its pieces. Text is taken as it is, as Llama's tokenizer does: identity
    normalisation, extra white space kept. ValueError if SentencePiece itself refuses the pieces."""
    model = ModelProto()
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer = model.trainer_spec
    trainer.model_type = BPE if model_type == "bpe" else UNIGRAM
    trainer.vocab_size = len(pieces)
    trainer.byte_fallback = BYTE in types
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = unk_id, bos_id, eos_id, pad_id
    for name, number in (("unk", unk_id), ("bos", bos_id), ("eos", eos_id), ("pad", pad_id)):
        if number >= 0:
            setattr(trainer, f"{name}_piece", pieces[number])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = add_dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    data: bytes = model.SerializeToString(deterministic=True)
    try:
        sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise ValueError(f"these pieces make no SentencePiece model: {error}") from None
    return data


def parsed(model: bytes) -> Any:
    """The ModelProto in `model`."""
    proto = ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError as error:
        raise ValueError(f"not a SentencePiece model ({error})") from None
    return proto


def pieces_of(model: bytes) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and types by id: the inverse of `sentencepiece_model`."""
    pieces = parsed(model).pieces
    return [p.piece for p in pieces], [p.score for p in pieces], [p.type for p in pieces]
