"""Where a text can be cut so that its parts, encoded apart, give the ids of the whole.

A *word* begins at a space behind anything but white space (or ▁, which SentencePiece reads as a space). In most
tokenizers no token reaches across that place and no choice depends on what lies beyond it. For which this holds is
decided here, by what the tokenizer is made of; the others' texts are not cut.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayni.text.sentencepiece_model import BPE, BYTE, CONTROL, parsed

_CROSSES = re.compile(r"[^▁]▁|.\n|\n.", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """The words of several texts: text d's are `distinct[which_N[offsets[d] : offsets[d + 1]]]`, joined by spaces."""

    distinct: list[str]
    which_N: np.ndarray
    offsets: np.ndarray


def words_of(texts: list[str]) -> Words:
    """The space in front of every word of a text but the first is left out. Lone surrogates are not taken."""
    import pyarrow.compute

    split = pyarrow.compute.split_pattern(pyarrow.array(texts, pyarrow.large_string()), " ")
    coded = split.values.dictionary_encode()
    return _joined(coded.dictionary.to_pylist(), coded.indices.to_numpy().copy(), split.offsets.to_numpy())


def _joined(distinct: list[str], which_N: np.ndarray, offsets: np.ndarray) -> Words:
    """Of texts split at all spaces: what ends in white space is one word with what stands behind the next space."""
    open_N = np.array([not word or word[-1].isspace() or word[-1] == "▁" for word in distinct])[which_N]
    open_N[offsets[1:] - 1] = False  # behind the last one of a text stands nothing
    places = np.flatnonzero(open_N)
    if not len(places):
        return Words(distinct, which_N, offsets)
    numbers: dict[str, int] = {}
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        word = " ".join(distinct[which] for which in which_N[run[0] : run[-1] + 2])
        which_N[run[0]] = numbers.setdefault(word, len(distinct) + len(numbers))
    taken_in = places + 1
    return Words([*distinct, *numbers], np.delete(which_N, taken_in), offsets - np.searchsorted(taken_in, offsets))


def apart_in_sentencepiece(model: bytes, inserted: Collection[str], space_after_inserted: bool) -> bool:
    """BPE on text taken as it is, of which no piece goes on behind a space, or holds a newline and more (a word is
    encoded behind a newline, which is then cut off). `inserted`: strings that are looked for before SentencePiece is
    asked; `space_after_inserted`: text behind one begins like a text of its own.

    Merges go by score and then from left to right, so those of one word never wait for another's. Only unknown
    characters could join, where they have no byte pieces.
    """
    proto = parsed(model)
    normalizer, trainer = proto.normalizer_spec, proto.trainer_spec
    plain = not normalizer.precompiled_charsmap and not normalizer.remove_extra_whitespaces
    return bool(
        trainer.model_type == BPE
        and plain
        and normalizer.escape_whitespaces
        and not trainer.treat_whitespace_as_suffix
        and any(piece.type == BYTE for piece in proto.pieces)
        and not any(_CROSSES.search(piece.piece) for piece in proto.pieces if piece.type != CONTROL)
        and not any(re.search(r"\s", text) for text in inserted)
        and not (inserted and space_after_inserted)
    )


def apart_in_tokenizers(content: Mapping[str, Any]) -> bool:
    """A tokenizer.json that takes text as it is and cuts it, before the merges, in a way in which nothing but white space
    stands in front of a space. Tokens added beside the model must not hold, swallow or look at what surrounds them."""
    from ayni.text.pre_tokenizers import known_name

    return (
        content.get("normalizer") is None
        and content.get("truncation") is None
        and content.get("padding") is None
        and not content["model"].get("dropout")
        and known_name(content.get("pre_tokenizer")) is not None
        and not any(
            any(token.get(flag) for flag in ("lstrip", "rstrip", "single_word")) or re.search(r"\s", token["content"])
            for token in content.get("added_tokens", [])
            if not token["special"]  # which are not read out of a text
        )
    )
