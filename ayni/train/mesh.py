"""The device mesh: one process is a mesh of one, and everything here works without torch.distributed.

Under `torchrun` parameters, gradients and optimizer state are sharded by FSDP2 (`fully_shard`), one layer gathered at a
time. Data is not distributed but sliced: every rank computes the same global batch and takes its contiguous rows.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

CPU = torch.device("cpu")

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Mesh:
    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    device_mesh: DeviceMesh | None = None  # None: one process

    @property
    def is_main(self) -> bool:
        return self.rank == 0


class Idle(NamedTuple):
    """A micro-batch that counts nothing: run because sharded layers are gathered by all ranks together."""

    batch: Any


def open_mesh(device: str = "cpu") -> Mesh:
    """The mesh that torchrun's environment describes (gloo on CPU, nccl on GPU), or a mesh of one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for and none is visible; use cpu, or check the driver")
    local = torch.device(device, int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(local)
    if world == 1:
        return Mesh(device=local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return Mesh(dist.get_rank(), world, local, init_device_mesh(device, (world,), mesh_dim_names=("data",)))


def leave() -> None:
    """Ends a rank's process once all ranks have come this far. Does nothing in a run of one process.

    Exits without running C++ static destructors: with gloo they once aborted a rank that has done its work ("terminate
    called without an active exception"), and torchrun then fails the whole job.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def shard(model: nn.Module, mesh: Mesh, dtype: torch.dtype = torch.float32) -> nn.Module:
    """FSDP2 over the mesh, every layer a unit, the rest (embeddings, norm, head) one more; in place. One rank: no-op.

    `dtype`: of the gathered working weights and the activations; shards, masters of them, and the sums of gradients
    over ranks are fp32. All ranks must hold the same weights. Sharding twice is sharding once.
    """
    model.to(mesh.device)
    if mesh.world == 1 or any(isinstance(p, DTensor) for p in model.parameters()):
        return model
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if dtype != torch.float32 else None
    options: dict[str, Any] = {"mesh": mesh.device_mesh} | ({"mp_policy": policy} if policy else {})
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered (by all ranks together), any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def place(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor laid out as `like` is: sharded over the same mesh, or just on the same device."""
    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor


def full_state(named: Iterable[tuple[str, Tensor]], mesh: Mesh, all_ranks: bool = False) -> dict[str, Tensor]:
    """Whole tensors on the CPU by name; empty on other ranks than the first unless `all_ranks`.

    One tensor is gathered at a time, so the other ranks never hold more than one.
    """
    state = {}
    for name, parameter in named:
        tensor = whole(parameter.detach())
        if mesh.is_main or all_ranks:
            state[name] = tensor.cpu()
    return state


@torch.no_grad()
def load_full_state(named: Iterable[tuple[str, Tensor]], state: dict[str, Tensor]) -> None:
    """The way back, for any number of ranks; all of them give the same whole tensors."""
    for name, parameter in named:
        parameter.copy_(place(state[name], parameter))


def gathered(model: M, mesh: Mesh, make: Callable[[], M]) -> M:
    """An unsharded copy on every rank, to sample from or to write; `make` builds the empty one. One rank: the model itself.

    Sampling from sharded layers would gather each of them for every token (the paper saw 20x): gather once, then free.
    """
    if mesh.world == 1:
        return model
    copy = make().to(mesh.device)
    load_full_state(copy.named_parameters(), full_state(model.named_parameters(), mesh, all_ranks=True))
    return copy


def all_reduce_sum(tensor: Tensor, mesh: Mesh) -> Tensor:
    """Sum over ranks, in place and returned."""
    if mesh.world > 1:
        dist.all_reduce(tensor)
    return tensor


def barrier(mesh: Mesh) -> None:
    if mesh.world > 1:
        dist.barrier()


def slice_rows(batch: Any, mesh: Mesh) -> Any:
    """This rank's contiguous share of a global batch: ceil(n / world) rows each, the last ranks' shares smaller."""
    share = math.ceil(len(batch) / mesh.world)
    return batch[mesh.rank * share : (mesh.rank + 1) * share]


def split(batch: Any, mesh: Mesh, micro_rows: int | None = None) -> list[Any]:
    """This rank's micro-batches of a global batch, equally many on all ranks (some perhaps `Idle`)."""
    share = math.ceil(len(batch) / mesh.world)
    micro_rows = min(micro_rows or share, share)
    mine = slice_rows(batch, mesh)
    micros = [mine[start : start + micro_rows] for start in range(0, share, micro_rows)]
    return [micro if len(micro) else Idle(batch[:1]) for micro in micros]
