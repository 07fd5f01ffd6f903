"""The same tokenizer in Hugging Face's form: `tokenizer.json` and a chat template, made from a SentencePiece model.

transformers and vLLM read these; our own code reads `tokenizer.model`. A test holds the two equal, id by id.
"""

from __future__ import annotations

import json

import sentencepiece

# One exchange per BOS and EOS, contents stripped, markers as single ids: dialogue.py's compact Llama 2 format.
LLAMA2_TEMPLATE = (
    "{%- set system = messages[0]['content'] | trim if messages[0]['role'] == 'system' else '' -%}"
    "{%- for message in messages if message['role'] != 'system' -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- bos_token + '[INST]' -}}"
    "{%- if loop.first and system -%}{{- '<<SYS>>' + system + '<</SYS>>' -}}{%- endif -%}"
    "{{- message['content'] | trim + '[/INST]' -}}"
    "{%- else -%}"
    "{{- message['content'] | trim + eos_token -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


def hugging_face_files(model: bytes) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json` for a SentencePiece BPE model with byte fallback."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    names = [pieces.IdToPiece(i) for i in range(pieces.GetPieceSize())]
    special = [i for i in range(len(names)) if pieces.IsControl(i) or pieces.IsUnknown(i)]
    bos, eos, pad, unknown = (names[i] for i in (pieces.bos_id(), pieces.eos_id(), pieces.pad_id(), pieces.unk_id()))
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": names[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for i in special
        ],
        # "Prepend" runs on every stretch between markers, as SentencePiece's dummy prefix does on every encoded text.
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [pieces.bos_id()], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": _merges(pieces, names),
        },
    }  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "unk_token": unknown,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "chat_template": LLAMA2_TEMPLATE,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, indent=1).encode(),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode(),
    }


def _merges(pieces: sentencepiece.SentencePieceProcessor, names: list[str]) -> list[list[str]]:
    """SentencePiece joins any two neighbours whose union is a piece, earliest-learned piece first: written out as pairs."""
    normal = {
        name: i for i, name in enumerate(names) if not (pieces.IsControl(i) or pieces.IsUnknown(i) or pieces.IsByte(i))
    }
    merges = []
    for name in normal:  # in order of ids, which is the order of learning
        halves = [(name[:cut], name[cut:]) for cut in range(1, len(name))]
        known = [pair for pair in halves if pair[0] in normal and pair[1] in normal]
        merges += [list(pair) for pair in sorted(known, key=lambda pair: (normal[pair[0]], normal[pair[1]]))]
    return merges
