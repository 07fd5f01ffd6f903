"""A decoding step over int8 weights as one call of C++ (int8_step.cpp), on machines with a compiler.

As torch's operations a step of one row is hundreds of calls that each move a few hundred kilobytes, and most of its time
is spent between them. In one call what is left is reading the weights, at the speed of memory. Without a compiler the
engine decodes by torch's operations (`Int8Linear.forward`) and says so once.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ayni import telemetry
from ayni.engine.cache import KVCache
from ayni.engine.int8 import Int8Linear
from ayni.model.transformer import Layer, Transformer
from ayni.train.compiling import code_folder

SOURCE = Path(__file__).with_name("int8_step.cpp")
OPTIONS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
# What torch found the processor to have; a build for the "native" one dies on some virtual machines.
INSTRUCTIONS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": (
        "-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512",
    ),
}  # fmt: skip
MOST_ROWS = 8  # of a step; beyond, torch's products are faster


class _Matrix(ctypes.Structure):
    _fields_ = [("whole", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("out", ctypes.c_int64), ("in", ctypes.c_int64)]


class _Layer(ctypes.Structure):
    _fields_ = [
        ("attention_norm", ctypes.c_void_p),
        *((name, _Matrix) for name in ("wq", "wk", "wv", "wo")),
        ("ffn_norm", ctypes.c_void_p),
        *((name, _Matrix) for name in ("w1", "w2", "w3")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("layers", "D", "F", "H", "K", "d", "V")),
        ("eps", ctypes.c_float),
        ("layer", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("output", _Matrix),
    ]


class _Cache(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("k", "v")),
        *((f"{name}_stride", ctypes.c_int64) for name in ("layer", "slot", "head")),
    ]


class Int8Step:
    """logits_RV = step(token_R, position_R, cache), R at most MOST_ROWS; new keys and values are written into the cache's slots 0..R-1.

    A row's logits are the same to the bit whatever the other rows and the number of threads. The model's int8 weights
    move into one block of memory, in the order of their use.
    """

    def __init__(self, model: Transformer, library: ctypes.CDLL) -> None:
        settings = model.settings
        self.model, self.library = model, library
        self.kept: list[Tensor] = []  # what the pointers point to
        lay_side_by_side([module for module in model.modules() if isinstance(module, Int8Linear)])
        self.layers = (_Layer * settings.n_layers)(*map(self._layer, model.layers))
        self.description = _Model(
            settings.n_layers,
            settings.dim,
            settings.ffn_dim,
            settings.n_heads,
            settings.n_kv_heads,
            settings.d_head,
            settings.vocab_size,
            settings.norm_eps,
            ctypes.cast(self.layers, ctypes.c_void_p),
            self._wide(model.norm.weight),
            self._matrix(model.output),
        )

    @classmethod
    def of(cls, model: Transformer) -> Int8Step | None:
        """None without a compiler, off the CPU, or where a matrix stayed in bf16 (engine/int8.py)."""
        linears = [module for module in model.modules() if isinstance(module, (Int8Linear, nn.Linear))]
        if any(isinstance(module, nn.Linear) or module.weight.device.type != "cpu" for module in linears):
            return None
        library = compiled_library()
        return cls(model, library) if library else None

    def __call__(self, token_R: Tensor, position_R: Tensor, cache: KVCache) -> Tensor:
        R, longest = len(token_R), cache.used
        assert R <= MOST_ROWS
        assert cache.k.is_contiguous()
        assert cache.k.dtype == torch.bfloat16
        x_RD = self.model.tok_embeddings(token_R).float()
        cos_Rd, sin_Rd = (table.float().reshape(R, -1) for table in self.model.rotation(position_R.unsqueeze(1), 1))
        layer, slot, head, _, _ = cache.k.stride()
        kept = _Cache(cache.k.data_ptr(), cache.v.data_ptr(), layer, slot, head)
        scratch = torch.empty(self.library.scratch_size(ctypes.byref(self.description), R, longest))
        logits_RV = torch.empty(R, self.model.settings.vocab_size)
        tensors = (tensor.data_ptr() for tensor in (x_RD, cos_Rd, sin_Rd, position_R))
        self.library.decode_step(
            ctypes.byref(self.description), ctypes.byref(kept), R, *tensors, longest, scratch.data_ptr(), logits_RV.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return logits_RV

    def _layer(self, layer: nn.Module) -> _Layer:
        assert isinstance(layer, Layer)
        attention, feed_forward = layer.attention, layer.feed_forward
        return _Layer(
            self._wide(layer.attention_norm.weight),
            *map(self._matrix, (attention.wq, attention.wk, attention.wv, attention.wo)),
            self._wide(layer.ffn_norm.weight),
            *map(self._matrix, (feed_forward.w1, feed_forward.w2, feed_forward.w3)),
        )

    def _wide(self, weight: Tensor) -> int:
        self.kept.append(weight.detach().float().contiguous())
        return self.kept[-1].data_ptr()

    def _matrix(self, linear: nn.Module | None) -> _Matrix:
        assert isinstance(linear, Int8Linear)
        return _Matrix(linear.weight.data_ptr(), self._wide(linear.scale), *linear.weight.shape)


def lay_side_by_side(linears: list[Int8Linear]) -> None:
    """The matrices moved into one block, in huge pages where the system has them: a sixth of a step's time."""
    sizes = [linear.weight.numel() for linear in linears]
    memory = mmap.mmap(-1, sum(sizes))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    for linear, place in zip(linears, torch.frombuffer(memory, dtype=torch.int8).split(sizes)):
        linear.weight = place.view_as(linear.weight).copy_(linear.weight)


@cache
def compiled_library() -> ctypes.CDLL | None:
    """int8_step.cpp as machine code, kept in the user's cache by what it was made from; None if it cannot be made here."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    options = (*OPTIONS, *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ()))
    identity = hashlib.sha256(repr((compiler, options, SOURCE.read_text())).encode()).hexdigest()[:16]
    path = code_folder() / f"{SOURCE.stem}-{identity}.so"
    if not path.exists():
        if compiler is None:
            telemetry.say(
                "  no C++ compiler on this machine: int8 weights are decoded by torch's operations, which is slower"
            )
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            done = subprocess.run([compiler, *options, str(SOURCE), "-o", str(made)], capture_output=True, text=True, check=False)  # fmt: skip
            if done.returncode:
                telemetry.say(f"  {compiler} cannot compile {SOURCE.name}, int8 weights are decoded by torch's operations, which is slower: {done.stderr[-300:]}")  # fmt: skip
                return None
            made.rename(path)
    library = ctypes.CDLL(str(path))
    pointer, index = ctypes.c_void_p, ctypes.c_int64
    library.scratch_size.argtypes, library.scratch_size.restype = [pointer, index, index], index
    library.decode_step.argtypes = [
        *(pointer, pointer, index),
        *[pointer] * 4,
        *(index, pointer, pointer, ctypes.c_int),
    ]
    library.decode_step.restype = None
    return library
