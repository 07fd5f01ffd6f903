"""Checkpoints: whole or not there, the older ones kept until the new one stands, nothing pickled."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ayni.train import checkpoint
from ayni.train.checkpoint import checkpoints, resumable_step
from ayni.train.loop import fit, rows_loss
from ayni.train.mesh import Mesh

from .small import OPTIMIZER, RandomRows, small_model, weights_equal

KILLED_WHILE_SAVING = """
import os, signal
from pathlib import Path
from ayni.train import checkpoint
from train.small import OPTIMIZER, RandomRows, small_model
from ayni.train.loop import fit, rows_loss
from ayni.train.mesh import Mesh

real_save = checkpoint.save_file

def save_file(tensors, path):
    real_save(tensors, path)
    if "unfinished-00000008" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save_file = save_file
fit(small_model(), RandomRows(), rows_loss, OPTIMIZER, steps=12, mesh=Mesh(), state_dir=Path("state"), save_every=4, seed=3)
"""


def train(model, state_dir, **options):
    options = {"steps": 12, "save_every": 4, "seed": 3, "settings": OPTIMIZER, **options}
    settings = options.pop("settings")
    return fit(model, RandomRows(), rows_loss, settings, mesh=Mesh(), state_dir=state_dir, **options)


def test_trap_17_a_kill_inside_a_save_leaves_the_checkpoint_before_and_resumes_bit_for_bit(tmp_path):
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    died = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING], cwd=tmp_path, env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    state_dir = tmp_path / "state"
    assert [path.name for path in sorted(state_dir.iterdir())] == [".unfinished-00000008", "step-00000004"]
    assert resumable_step(state_dir) == 4
    straight, resumed = small_model(), small_model(seed=99)
    assert train(resumed, state_dir) == train(straight, tmp_path / "straight")
    assert weights_equal(straight, resumed)
    assert not list(state_dir.glob(".unfinished-*"))


def test_the_last_two_checkpoints_stay_and_hold_no_pickle(tmp_path):
    train(small_model(), tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000008", "step-00000012"]
    for path in checkpoints(tmp_path):
        files = sorted(file.name for file in path.iterdir())
        assert files == ["model.safetensors", "model_optimizer.safetensors", "state.json"]
        record = json.loads((path / "state.json").read_text())
        assert record["step"] == int(path.name[-8:])
        assert record["tokens"] == record["step"] * 7 * 8
        assert len(record["rng"]["torch"]) == len(torch.get_rng_state())


def test_a_full_disk_is_one_clear_error_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
    real_save = checkpoint.save_file

    def save_file(tensors, path):
        if "00000008" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with pytest.raises(ValueError, match=r"step 8 .*No space left on device.*earlier ones are untouched"):
        train(small_model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_other_settings_and_damaged_files_are_refused(tmp_path):
    train(small_model(), tmp_path)
    with pytest.raises(ValueError, match=r"step-00000012 was written under other settings; remove"):
        train(small_model(), tmp_path, settings=OPTIMIZER.model_copy(update={"lr": 0.5}))
    weights = tmp_path / "step-00000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        train(small_model(), tmp_path)
