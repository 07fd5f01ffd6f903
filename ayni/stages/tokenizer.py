"""Stage 1: the tokenizer (paper 2.2): SentencePiece BPE, numbers split into digits, unknown UTF-8 as bytes."""

from __future__ import annotations

from pathlib import Path

from ayni.artifacts import Artifact, build
from ayni.config import TokenizerSettings
from ayni.text.sources import read_texts
from ayni.text.tokenizer import train_tokenizer


def run(settings: TokenizerSettings, corpus: Path, out: Path, *, seed: int) -> Artifact:
    """Trains on a file or folder of texts (.txt, .jsonl, .parquet)."""

    def work_in(work: Path) -> None:
        train_tokenizer(
            read_texts(corpus), work, vocab_size=settings.vocab_size, seed=seed, split_digits=settings.split_digits
        )

    return build(out, "tokenizer", settings.model_dump(), {"corpus": corpus}, seed, work_in)
