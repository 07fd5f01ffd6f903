"""Loading SmolLM2-135M's shape: the goal is one second, the first time in a process, from a file in the page cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ayni.config import ModelSettings
from ayni.model import Transformer
from ayni.model.checkpoint import empty_model, load_model, save_model

from .small import language_model

SMOLLM2 = ModelSettings(
    vocab_size=49152, dim=576, n_layers=30, n_heads=9, n_kv_heads=3, ffn_dim=1536, max_seq_len=2048,
    rope_theta=100000, tie_embeddings=True,
)  # fmt: skip
BOUND = 2.0  # seconds; the machine of a test is busy
SCRIPT = """
import sys, time, torch
from pathlib import Path
from ayni.model.checkpoint import load_model
start = time.perf_counter()
model = load_model(Path(sys.argv[1]), getattr(torch, sys.argv[2]))
print(time.perf_counter() - start)
"""


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["from fp32", "from bf16"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = empty_model(SMOLLM2, scalar=False).state_dict()
    weights = {name: torch.full(value.shape, 0.01, dtype=request.param) for name, value in shapes.items()}
    out = tmp_path_factory.mktemp("smollm2-shape")
    save_model(empty_model(SMOLLM2, scalar=False), out, state=weights)
    return out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_of_135m_loads_in_a_second(directory: Path, dtype: str) -> None:
    times = []
    for _ in range(3):
        command = [sys.executable, "-c", SCRIPT, str(directory), dtype]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times.append(float(found))
    print(f"into {dtype}: {min(times):.2f} s, goal 1")
    assert min(times) < BOUND


def test_the_weights_are_no_pages_of_the_file(tmp_path: Path) -> None:
    """A later save writes the same file: what was loaded stays as it was, in torch's own, aligned memory."""
    model = language_model()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert str(file) not in Path("/proc/self/maps").read_text()
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert all(value.data_ptr() % 64 == 0 and value.untyped_storage().resizable() for value in loaded.parameters())


def test_a_model_without_storage_asks_for_no_start_values() -> None:
    """Asking for them on the meta device made torch import its decompositions: a second and more."""
    code = (
        "import sys, torch; from ayni.config import ModelSettings; from ayni.model.checkpoint import empty_model; "
        "before = set(sys.modules); empty_model(ModelSettings(), False); print(len(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(found) < 10
    assert isinstance(empty_model(SMOLLM2, scalar=False), Transformer)
