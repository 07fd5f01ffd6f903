"""The same tokenizer in Hugging Face's form: `tokenizer.json` and a chat template, made from a SentencePiece model.

transformers and vLLM read these; our own code reads `tokenizer.model`. A test holds the two equal, id by id.
"""

from __future__ import annotations

import json
from typing import Any

from ayni.text.native import MARKERS
from ayni.text.sentencepiece_model import BPE, BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, parsed
from ayni.text.template import LLAMA2_TEMPLATE, META_TEMPLATE


def hugging_face_files(model: bytes, template: str | None = None) -> dict[str, bytes]:
    """`tokenizer_config.json` with a chat template (default: the Llama 2 dialogue format), and `tokenizer.json` where the
    tokenizers library can follow SentencePiece: BPE on text taken as it is. Others transformers converts by itself.

    The ids are SentencePiece's, with what the library cannot express left out: pieces marked unused, equal merges' order,
    and, in models with user-defined symbols, the space in front of a text that begins with one or with a space.
    """
    proto = parsed(model)
    pieces = [piece.piece for piece in proto.pieces]
    types = [piece.type for piece in proto.pieces]
    trainer = proto.trainer_spec

    def named(number: int) -> str | None:
        return pieces[number] if 0 <= number < len(pieces) else None

    is_compact = all(marker in pieces and types[pieces.index(marker)] == CONTROL for marker in MARKERS)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": named(trainer.bos_id),
        "eos_token": named(trainer.eos_id),
        "pad_token": named(trainer.pad_id),
        "unk_token": named(trainer.unk_id),
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "chat_template": template or (LLAMA2_TEMPLATE if is_compact else META_TEMPLATE),
    }
    files = {"tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode()}
    text_as_it_is = (
        not proto.normalizer_spec.precompiled_charsmap and not proto.normalizer_spec.remove_extra_whitespaces
    )
    if trainer.model_type == BPE and text_as_it_is:
        tokenizer = _tokenizer(proto, pieces, types)
        files["tokenizer.json"] = json.dumps(tokenizer, ensure_ascii=False, indent=1).encode()
    return files


def _tokenizer(proto: Any, pieces: list[str], types: list[int]) -> dict[str, Any]:
    trainer = proto.trainer_spec
    added = [i for i, kind in enumerate(types) if kind in (CONTROL, UNKNOWN, USER_DEFINED)]
    spaces: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prefixed: dict[str, Any] | None = None
    if proto.normalizer_spec.add_dummy_prefix and USER_DEFINED not in types:
        # "Prepend" runs on every stretch between markers, as SentencePiece's dummy prefix does on every encoded text.
        spaces = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}
    elif proto.normalizer_spec.add_dummy_prefix:
        # User-defined symbols cut the text in stretches too, but SentencePiece puts no space after them.
        prefixed = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    bos = pieces[trainer.bos_id] if trainer.bos_id >= 0 else None
    first = [{"SpecialToken": {"id": bos, "type_id": 0}}] if bos else []
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": pieces[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": types[i] != USER_DEFINED}
            for i in added
        ],
        "normalizer": spaces,
        "pre_tokenizer": prefixed,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [trainer.bos_id], "tokens": [bos]}} if bos else {},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [*decoders, strip] if proto.normalizer_spec.add_dummy_prefix else decoders,
        },
        "model": {
            "type": "BPE",
            "unk_token": pieces[trainer.unk_id],
            "fuse_unk": True,
            "byte_fallback": BYTE in types,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": _merges({p.piece: p.score for p in proto.pieces if p.type == NORMAL}),
        },
    }  # fmt: skip


def _merges(normal: dict[str, float]) -> list[list[str]]:
    """SentencePiece joins any two neighbours whose union is a piece, best score first: written out as pairs."""
    rank = {piece: i for i, piece in enumerate(normal)}
    merges = []
    for piece in sorted(normal, key=lambda piece: -normal[piece]):
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in halves if pair[0] in normal and pair[1] in normal]
        merges += [list(pair) for pair in sorted(known, key=lambda pair: (rank[pair[0]], rank[pair[1]]))]
    return merges
