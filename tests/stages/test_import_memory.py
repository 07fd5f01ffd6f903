"""A checkpoint streams through `ayni import`: measured, since a 7B model must not need two copies of itself in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ayni.config import ExportSettings, ModelSettings
from ayni.model.checkpoint import empty_model, open_checkpoint, save_model, wanted_shapes
from ayni.stages import exporting
from ayni.text.tokenizer import train_tokenizer
from tests.conftest import environment

LARGE = ModelSettings(vocab_size=300, dim=1024, n_layers=16, n_heads=16, n_kv_heads=8, ffn_dim=2816, max_seq_len=128)
SMALL = LARGE.model_copy(update={"dim": 64, "n_layers": 1, "ffn_dim": 64})


def write_model(directory: Path, settings: ModelSettings, shard_bytes: int) -> int:
    """A bfloat16 model of random weights, each made when it is written; returns its bytes."""
    texts = [f"the ant number {n} saw a bee and a cat on the hill" for n in range(50)]
    tokenizer = train_tokenizer(texts, directory, vocab_size=300)
    shapes = wanted_shapes(settings, scalar=False)

    class Weights(dict[str, torch.Tensor]):
        def __missing__(self, name: str) -> torch.Tensor:
            return torch.full(shapes[name], 0.5, dtype=torch.bfloat16)

    weights = Weights({"norm.weight": torch.ones(settings.dim, dtype=torch.bfloat16)})
    save_model(empty_model(settings, scalar=False), directory, tokenizer, weights, shard_bytes)
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def peak_bytes(*arguments: str | Path) -> int:
    """Most resident memory of the command, mapped files included."""
    command = [sys.executable, "-m", "ayni", *map(str, arguments)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    message = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, message
    return usage.ru_maxrss * 1024


@pytest.mark.parametrize("source", ["shards", "one file", "meta", "gguf"])
def test_an_import_peaks_below_1_3_times_the_models_size(source: str, tmp_path: Path) -> None:
    shard_bytes = 10**10 if source == "one file" else 40_000_000
    peaks = {}
    for name, settings in (("small", SMALL), ("large", LARGE)):
        path = tmp_path / name
        size = write_model(path, settings, shard_bytes)
        if source in ("meta", "gguf"):
            kind = (
                ExportSettings(to="meta", parts=2) if source == "meta" else ExportSettings(to="gguf", dtype="bfloat16")
            )
            path = exporting.run(kind, path, tmp_path / f"{name}-{source}")
        peaks[name] = peak_bytes("import", path, tmp_path / f"{name}-imported")
        assert open_checkpoint(tmp_path / f"{name}-imported").dtype == torch.bfloat16
    share = (peaks["large"] - peaks["small"]) / size
    print(f"{source}: {size / 1e6:.0f} MB of weights, {share:.2f} of them resident at once")
    assert size > 350e6
    assert share < 1.3
