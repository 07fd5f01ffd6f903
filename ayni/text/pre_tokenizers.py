"""How byte-level tokenizers cut text before their merges: the ways known here, by GGUF's name for each."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Regex, pre_tokenizers

# ByteLevel brings GPT-2's regular expression by itself.
LLAMA3_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


def known_name(pre_tokenizer: Any) -> str | None:
    """GGUF's name for the `pre_tokenizer` of a tokenizer.json, found by what it does; None if it is another."""
    wanted = _settled(pre_tokenizer)
    names = (name for name, known in PRE_TOKENIZERS.items() if _settled(json.loads(known.__getstate__())) == wanted)
    return next(names, None)


def _settled(config: Any) -> Any:
    """Without trim_offsets, which moves offsets and no ids."""
    if isinstance(config, list):
        return [_settled(item) for item in config]
    if isinstance(config, dict):
        return {key: _settled(value) for key, value in config.items() if key != "trim_offsets"}
    return config
