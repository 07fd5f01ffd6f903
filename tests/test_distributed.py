"""The same command under torchrun: two processes equal one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from tests.conftest import ayni, environment


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_torchrun_with_two_processes_equals_one_in_loss_over_20_steps(smoke_run: Path, tmp_path: Path) -> None:
    flags = [
        "--data", str(smoke_run / "data" / "corpus"), "--tokenizer", str(smoke_run / "tokenizer"), "--tokens", "20480",
        "--set", "row_len=128", "--set", "batch_rows=8", "--set", "model.dim=32", "--set", "model.n_layers=2",
        "--set", "model.n_heads=2", "--set", "model.n_kv_heads=1", "--set", "model.ffn_dim=64", "--lr", "0.003",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    alone = ayni("pretrain", *flags, "--out", one)
    assert alone.returncode == 0, alone.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1",
        f"--master_port={port}", "-m", "ayni", "pretrain", *flags, "--out", str(two),
    ]  # fmt: skip
    together = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert together.returncode == 0, together.stderr

    assert len(losses(one)) == len(losses(two)) == 20
    assert max(abs(a - b) for a, b in zip(losses(one), losses(two))) < 1e-5
    assert losses(one)[-1] < losses(one)[0] - 0.5, "it learns at all"
    weights_one, weights_two = (load_file(out / "model.safetensors") for out in (one, two))
    assert max(float((weights_one[name] - weights_two[name]).abs().max()) for name in weights_one) < 1e-4
