from __future__ import annotations

from pathlib import Path

import pytest

from ayni.text.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """300 pieces, as many as the small models have embeddings."""
    texts = [f"the ant number {n} saw a bee and a cat on the hill" for n in range(50)]
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    return train_tokenizer(texts, directory, vocab_size=300, seed=0)
