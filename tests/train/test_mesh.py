"""One process or two ranks under torchrun: the same training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ayni.model.heads import ScalarHead
from ayni.train.loop import fit, rows_loss
from ayni.train.losses import whiten
from ayni.train.mesh import Idle, Mesh, all_reduce_sum, gathered, open_mesh, shard, slice_rows, split

from .small import OPTIMIZER, RandomRows, small_model

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("n", "world", "micro_rows"), [(7, 2, 2), (8, 4, None), (3, 4, 1), (5, 4, 1), (1, 3, 2), (9, 1, 4)]
)
def test_ranks_slice_one_global_batch_into_equally_many_micro_batches(n, world, micro_rows):
    batch = torch.arange(n)
    parts = [split(batch, Mesh(rank=rank, world=world), micro_rows) for rank in range(world)]
    assert (
        len({len(part) for part in parts}) == 1
    )  # sharded layers are gathered together, so all must call equally often
    rows = [row for part in parts for micro in part if not isinstance(micro, Idle) for row in micro.tolist()]
    assert rows == list(range(n))
    assert all(len(micro) <= (micro_rows or n) for part in parts for micro in part if not isinstance(micro, Idle))
    contiguous = [slice_rows(batch, Mesh(rank=rank, world=world)) for rank in range(world)]
    assert torch.cat(contiguous).tolist() == rows


def test_without_torchrun_there_is_one_rank_and_nothing_is_sharded(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    mesh = open_mesh()
    assert (mesh.rank, mesh.world, mesh.device_mesh, mesh.is_main) == (0, 1, None, True)
    model = small_model()
    assert shard(model, mesh) is model
    assert gathered(model, mesh, small_model) is model
    assert all_reduce_sum(torch.tensor(3.0), mesh).item() == 3.0
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device cuda was asked for and none is visible"):
            open_mesh("cuda")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("two_ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent), "AYNI_QUIET": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(HERE / "two_ranks.py"), str(out)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def train_alone(state_dir):
    model = small_model()
    mesh = Mesh()
    history = fit(
        model, RandomRows(), rows_loss, OPTIMIZER, steps=20, mesh=mesh, state_dir=state_dir, save_every=10, seed=3
    )
    return model, history


def assert_close(history, expected):
    assert [row["step"] for row in history] == [row["step"] for row in expected] == list(range(1, 21))
    for row, wanted in zip(history, expected):
        assert row["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
        assert (row["tokens"], row["lr"]) == (wanted["tokens"], wanted["lr"])


def test_trap_08_two_ranks_train_like_one_process_stopped_half_way_or_not(two_ranks, tmp_path):
    """7 rows over 2 ranks in micro-batches of 2: unequal shares, an idle micro-batch, tied embeddings, a resume."""
    model, expected = train_alone(tmp_path)
    assert_close(json.loads((two_ranks / "history.json").read_text()), expected)
    sharded, whole = load_file(two_ranks / "sharded.safetensors"), load_file(two_ranks / "gathered.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.allclose(sharded[name], parameter, atol=1e-4), name
        assert torch.equal(sharded[name], whole[name]), name


def test_trap_16_a_run_of_two_ranks_goes_on_in_one_process(two_ranks, tmp_path):
    _, expected = train_alone(tmp_path)
    _, history = train_alone(two_ranks / "state-at-10")
    assert_close(history, expected)
    assert history[:10] == json.loads((two_ranks / "history.json").read_text())[:10]


def test_trap_05_whitening_and_sharded_scores_agree_across_ranks(two_ranks):
    found = [json.loads((two_ranks / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert found[0]["white"] + found[1]["white"] == pytest.approx(whiten(torch.arange(9.0)).tolist(), abs=1e-6)
    scalar = ScalarHead.from_language_model(small_model())
    torch.nn.init.ones_(scalar.score.weight)
    expected = scalar(RandomRows().at(0))
    for rank in range(2):
        assert torch.allclose(torch.tensor(found[rank]["scores"]), expected, atol=1e-5)
