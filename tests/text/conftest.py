from __future__ import annotations

from pathlib import Path

import pytest

from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

from .samples import sample_texts


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(sample_texts(), directory, vocab_size=500, seed=0)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_dir)
