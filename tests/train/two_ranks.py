"""Run by test_mesh under torchrun: trains on two ranks, stops half-way, resumes, and leaves what it found."""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from train.small import OPTIMIZER, SETTINGS, RandomRows, small_model

from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.train.loop import fit, rows_loss
from ayni.train.losses import whiten
from ayni.train.mesh import all_reduce_sum, barrier, full_state, gathered, leave, open_mesh, shard, slice_rows


class Stop(Exception):
    pass


def stop(step):
    raise Stop


def main(out):
    mesh = open_mesh()
    assert mesh.world == 2

    def run(model, **options):
        return fit(
            model, RandomRows(), rows_loss, OPTIMIZER, steps=20, mesh=mesh, state_dir=out / "state", save_every=10,
            seed=3, micro_rows=2, **options,
        )  # fmt: skip

    try:
        run(small_model(), evaluate=stop, eval_every=10)
    except Stop:
        barrier(mesh)
    if mesh.is_main:
        shutil.copytree(out / "state", out / "state-at-10")
    model = small_model(seed=99)
    history = run(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    whole = gathered(model, mesh, lambda: Transformer(SETTINGS))
    assert not any(isinstance(parameter, DTensor) for parameter in whole.parameters())
    white = whiten(slice_rows(torch.arange(9.0), mesh), all_reduce=lambda tensor: all_reduce_sum(tensor, mesh))

    scalar = ScalarHead.from_language_model(small_model())
    torch.nn.init.ones_(scalar.score.weight)
    shard(scalar, mesh)
    scores = scalar(RandomRows().at(0))
    state = full_state(model.named_parameters(), mesh)
    assert bool(state) == mesh.is_main
    (out / f"rank-{mesh.rank}.json").write_text(json.dumps({"white": white.tolist(), "scores": scores.tolist()}))
    if mesh.is_main:
        (out / "history.json").write_text(json.dumps(history))
        save_file(state, out / "sharded.safetensors")
        save_file({name: p.detach() for name, p in whole.named_parameters()}, out / "gathered.safetensors")
    leave()


main(Path(sys.argv[1]))
