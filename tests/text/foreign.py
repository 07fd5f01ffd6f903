"""Small tokenizers in the forms that well-known checkpoints have, trained here by the libraries themselves."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

from .samples import sample_texts

TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent / "templates").glob("*.jinja")}
MARKER_WORDS = "[INST] <<SYS>> <</SYS>> [/INST] <|user|> <|assistant|>"

# As in the tokenizer.json that Meta has published with Llama 3.
LLAMA3_PRE_TOKENIZER = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
])  # fmt: skip
SMOLLM_PRE_TOKENIZER = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATML_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@lru_cache
def meta_model(**changes: Any) -> bytes:
    """SentencePiece as Meta trained Llama's: no ids for the dialogue's markers, no padding."""
    model = io.BytesIO()
    lines = [line for text in sample_texts() for line in text.split("\n") if "\t" not in line]
    options = {
        "model_type": "bpe", "vocab_size": 600, "byte_fallback": True, "split_digits": True,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([MARKER_WORDS] * 3 + lines), model_writer=model, minloglevel=2, **options | changes
    )
    return model.getvalue()


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def llama3_files(template: str | None = None) -> dict[str, bytes]:
    """Byte-level BPE as Llama 3's: special tokens behind the vocabulary, words that are pieces taken whole."""
    return _bpe_files(LLAMA3_PRE_TOKENIZER, LLAMA3_SPECIALS, "<|begin_of_text|>", "<|eot_id|>", template, first=False)


def chatml_files(template: str | None = None) -> dict[str, bytes]:
    """Byte-level BPE as SmolLM2's: special tokens first, single digits."""
    return _bpe_files(SMOLLM_PRE_TOKENIZER, CHATML_SPECIALS, "<|im_start|>", "<|im_end|>", template, first=True)


def _bpe_files(
    cut: Any, specials: list[str], bos: str, eos: str, template: str | None, first: bool
) -> dict[str, bytes]:
    bpe = tokenizers.Tokenizer(models.BPE(ignore_merges=not first))
    bpe.pre_tokenizer = cut
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=specials if first else [], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(sample_texts(), trainer)
    bpe.add_special_tokens([AddedToken(special, normalized=False, special=True) for special in specials])
    if not first:
        number = bpe.token_to_id(bos)
        bpe.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, number)])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
    if template is not None:
        config["chat_template"] = template
    return {"tokenizer.json": bpe.to_str().encode(), "tokenizer_config.json": to_json(config)}
