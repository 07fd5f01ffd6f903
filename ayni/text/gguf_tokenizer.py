"""Tokenizers in GGUF metadata, in and out: SentencePiece-style ("llama") and byte-level BPE ("gpt2")."""

from __future__ import annotations

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, processors

from ayni.text.hf_tokenizer import hugging_face_files
from ayni.text.pre_tokenizers import PRE_TOKENIZERS, known_name
from ayni.text.sentencepiece_model import (
    BPE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    parsed,
    pieces_of,
    sentencepiece_model,
)
from ayni.text.template import CHATML_TEMPLATE
from ayni.text.tokenizer import Tokenizer

IGNORE_MERGES = {"llama-bpe"}  # words that are pieces are taken whole, without looking at the merges
ADD_BOS = {"llama-bpe"}  # where llama.cpp starts a text with BOS unless the file says otherwise
ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
ADDED_SCORE = -1000.0  # llama.cpp's for tokens beside the SentencePiece model


def files_from_gguf(fields: dict[str, Any], where: str) -> dict[str, bytes]:
    """Tokenizer files from a GGUF's metadata (values as GGUFReader's `contents()` gives them); `where` names it in errors.

    "llama" -> tokenizer.model, "gpt2" -> tokenizer.json, each with tokenizer_config.json and the file's own chat template.
    """
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    try:
        _check(fields)
        if kind == "llama":
            return _sentencepiece_files(fields)
        if kind == "gpt2" and cut in PRE_TOKENIZERS:
            return _bpe_files(fields, cut)
    except KeyError as error:
        raise ValueError(f"{where}: the metadata lacks {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    raise ValueError(
        f"{where}: tokenizer {kind!r} with pre-tokenizer {cut!r} is not supported; "
        f"expected 'gpt2' with one of {', '.join(PRE_TOKENIZERS)}, or 'llama'"
    )


def _check(fields: dict[str, Any]) -> None:
    count = len(fields["tokenizer.ggml.tokens"])
    for key in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
        if key in fields and len(fields[key]) != count:
            raise ValueError(f"{key} has {len(fields[key])} entries, tokenizer.ggml.tokens has {count}")
    for name in ROLES:
        key = f"tokenizer.ggml.{name}_token_id"
        if not 0 <= fields.get(key, 0) < count:
            raise ValueError(f"{key} is {fields[key]}, but there are {count} tokens")


def _sentencepiece_files(fields: dict[str, Any]) -> dict[str, bytes]:
    eos, pad = fields.get("tokenizer.ggml.eos_token_id", 2), fields.get("tokenizer.ggml.padding_token_id", -1)
    model = sentencepiece_model(
        fields["tokenizer.ggml.tokens"],
        fields["tokenizer.ggml.scores"],
        fields["tokenizer.ggml.token_type"],
        unk_id=fields.get("tokenizer.ggml.unknown_token_id", 0),
        bos_id=fields.get("tokenizer.ggml.bos_token_id", 1),
        eos_id=eos,
        pad_id=pad if pad != eos else -1,  # padding is never EOS (TRAPS 10)
        add_dummy_prefix=fields.get("tokenizer.ggml.add_space_prefix", True),
    )
    return {"tokenizer.model": model} | hugging_face_files(model, _template(fields))


def _template(fields: dict[str, Any]) -> str | None:
    own: str | None = fields.get("tokenizer.chat_template")
    return own or (CHATML_TEMPLATE if "<|im_start|>" in fields["tokenizer.ggml.tokens"] else None)


def _bpe_files(fields: dict[str, Any], cut: str) -> dict[str, bytes]:
    pieces, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=cut in IGNORE_MERGES))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"tokenizer.ggml.merges do not fit tokenizer.ggml.tokens: {error}") from None
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[cut]
    tokenizer.decoder = decoders.ByteLevel()
    for kind, is_special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [AddedToken(p, normalized=False, special=is_special) for p, k in zip(pieces, types) if k == kind]
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)(added)
    named = {
        role: None if (number := fields.get(f"tokenizer.ggml.{key}_token_id")) is None else pieces[number]
        for key, role in ROLES.items()
    }
    bos = named["bos_token"]
    if bos is not None and fields.get("tokenizer.ggml.add_bos_token", cut in ADD_BOS):
        tokenizer.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, vocab[bos])])
    if named["pad_token"] == named["eos_token"]:
        named["pad_token"] = named["unk_token"]  # padding is never EOS (TRAPS 10)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "clean_up_tokenization_spaces": False}
    template = _template(fields)
    if template is not None:
        config["chat_template"] = template
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode(),
    }


def gguf_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    """The metadata from which llama.cpp tokenises as we do: the inverse of `files_from_gguf`.

    ValueError for a tokenizer that GGUF has no name for here (Unigram models, normalised text, other pre-tokenizers).
    """
    fields = _sentencepiece_fields(tokenizer) if "tokenizer.model" in tokenizer.files else _bpe_fields(tokenizer)
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "padding": tokenizer.pad_id}
    fields |= {f"tokenizer.ggml.{key}_token_id": number for key, number in ids.items() if number is not None}
    fields["tokenizer.ggml.add_eos_token"] = False
    if tokenizer.template is not None:
        fields["tokenizer.chat_template"] = tokenizer.template
    return fields


def _sentencepiece_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    proto = parsed(tokenizer.files["tokenizer.model"])
    if proto.trainer_spec.model_type != BPE:
        raise ValueError("tokenizer.model is no BPE model; llama.cpp's 'llama' tokenizer is BPE alone")
    if proto.normalizer_spec.precompiled_charsmap or proto.normalizer_spec.remove_extra_whitespaces:
        raise ValueError(
            f"tokenizer.model normalises text ({proto.normalizer_spec.name}); llama.cpp's 'llama' tokenizer does not"
        )
    pieces, scores, types = pieces_of(tokenizer.files["tokenizer.model"])
    beside = {i: (piece, CONTROL) for piece, i in tokenizer.specials.items()}
    beside |= {i: (piece, USER_DEFINED) for piece, i in tokenizer.added.items()}
    for number in range(len(pieces), tokenizer.vocab_size):
        piece, kind = beside.get(number, (f"[PAD{number}]", UNUSED))
        pieces.append(piece)
        scores.append(ADDED_SCORE)
        types.append(kind)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": proto.trainer_spec.unk_id,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
    }


def _bpe_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    content = json.loads(tokenizers.Tokenizer.from_str(tokenizer.files["tokenizer.json"].decode()).to_str())
    model = content["model"]
    if model["type"] != "BPE" or content["normalizer"] is not None:
        raise ValueError(
            f"tokenizer.json holds a {model['type']} model with normalizer {content['normalizer']}; GGUF's 'gpt2' is BPE "
            "without one"
        )
    cut = _name_of(content["pre_tokenizer"])
    if bool(model["ignore_merges"]) != (cut in IGNORE_MERGES):
        raise ValueError(
            f"tokenizer.json: ignore_merges is {model['ignore_merges']}, which {cut!r} does not do in llama.cpp"
        )
    kinds = dict.fromkeys(model["vocab"], NORMAL)
    kinds |= {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in content["added_tokens"]}
    number_of = model["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    piece_of = {number: piece for piece, number in number_of.items()}
    pieces = [piece_of.get(i, f"[PAD{i}]") for i in range(tokenizer.vocab_size)]
    bos = json.dumps(content["post_processor"] or {})
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut,
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [kinds.get(piece, UNUSED) for piece in pieces],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.add_bos_token": "SpecialToken" in bos,
        "tokenizer.ggml.add_space_prefix": False,
    }
    unknown = number_of.get(tokenizer.named.get("unk_token", ""))
    return fields if unknown is None else fields | {"tokenizer.ggml.unknown_token_id": unknown}


def _name_of(pre_tokenizer: Any) -> str:
    name = known_name(pre_tokenizer)
    if name is None:
        shown = json.dumps(pre_tokenizer, ensure_ascii=False)[:300]
        raise ValueError(
            f"tokenizer.json: GGUF has no name here for the pre-tokenizer {shown}; known are {', '.join(PRE_TOKENIZERS)}"
        )
    return name
