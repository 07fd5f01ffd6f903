"""Preferences as token sequences: what a reward model trains on and is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.tokenizer import Tokenizer
from ayni.train.batches import truncate_pairs

Row = dict[str, Any]
# (chosen, rejected) is safe, by the annotator's second label (paper 3.2.1)
SAFE = {"chosen_only": (True, False), "both": (True, True), "neither": (False, False)}


@dataclass(frozen=True)
class Pair:
    """Prompt + answer token sequences; `answer_tokens` of each stand at its end."""

    chosen: list[int]
    rejected: list[int]
    answer_tokens: tuple[int, int]
    strength: int
    safe: tuple[bool, bool] | None  # (chosen, rejected), where an annotator said so
    offset: float = 0.0  # what the likelihood term adds to r_chosen - r_rejected


def encode_pairs(tokenizer: Tokenizer, rows: list[Row], row_len: int) -> tuple[list[Pair], int]:
    """Token pairs, and how many rows were dropped since both answers are equal after truncation (TRAPS 12)."""
    encoded = [[encode_side(tokenizer, row, side) for side in ("chosen", "rejected")] for row in rows]
    cut, kept = truncate_pairs([(prompt + y_c, also + y_r) for (prompt, y_c), (also, y_r) in encoded], row_len)
    pairs = [
        Pair(
            list(chosen),
            list(rejected),
            (min(len(encoded[i][0][1]), row_len - 1), min(len(encoded[i][1][1]), row_len - 1)),
            int(rows[i].get("strength") or 0),
            SAFE.get(rows[i].get("safety") or ""),
        )
        for (chosen, rejected), i in zip(cut, kept)
    ]
    return pairs, len(rows) - len(pairs)


def encode_side(tokenizer: Tokenizer, row: Row, side: str) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of the row's chosen or rejected answer, the end token included."""
    return encode_answer(tokenizer, row["prompt"], row[side])


def encode_answer(
    tokenizer: Tokenizer, messages: list[dict[str, Any]], answer: list[dict[str, Any]]
) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of an answer to a dialogue, the end token included."""
    prompt = encode_prompt(tokenizer, messages)
    return prompt, encode_chat(tokenizer, messages + answer)[0][len(prompt) :]
