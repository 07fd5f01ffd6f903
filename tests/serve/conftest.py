from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from ayni.serve.app import create_app
from ayni.text.tokenizer import Tokenizer, train_tokenizer
from tests.text.samples import sample_texts

from .tiny import Live, running, write_language_model, write_reward_model


@pytest.fixture(scope="session")
def serve_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(sample_texts(), tmp_path_factory.mktemp("served") / "tokenizer", vocab_size=500)


@pytest.fixture(scope="session")
def model_dir(serve_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("served") / "little", serve_tokenizer)


@pytest.fixture(scope="session")
def reward_dir(serve_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward_model(tmp_path_factory.mktemp("served") / "taste", serve_tokenizer)


@pytest.fixture(scope="session")
def live(model_dir: Path, reward_dir: Path) -> Iterator[Live]:
    """A language model and a reward model behind a real server."""
    with running(create_app([model_dir], [reward_dir], max_rows=8)) as server:
        yield server


@pytest.fixture(scope="session")
def client(live: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0, timeout=30)
