"""Safetensors written tensor by tensor: the library's own `save_file` wants all tensors of a file in memory at once.

A file is eight bytes (the header's length, little endian), a JSON header (name -> dtype, shape, [begin, end)), the data.
Reading stays with the library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ayni.telemetry import ProgressBar, progress

SHARD_BYTES = 5_000_000_000
SHOWN_BYTES = 500_000_000  # writing less takes no time worth a progress bar
TYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
Shape = tuple[int, ...]


def write_shards(
    directory: Path,
    shapes: Mapping[str, Shape],
    dtype: torch.dtype,
    read: Callable[[str], Tensor],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """model.safetensors, or several files with an index where one would pass `shard_bytes`; `read` gives each tensor in turn.

    Holds one tensor at a time. ValueError if a value does not fit `dtype`.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    total = sum(sizes.values())
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        weight_map = {name: file for file, names in zip(files, shards) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    if total < SHOWN_BYTES:
        _write_files(directory, files, shards, shapes, dtype, read, None)
        return
    with progress("writing weights", total / 1e6, "MB") as bar:
        _write_files(directory, files, shards, shapes, dtype, read, bar)


def _write_files(
    directory: Path,
    files: list[str],
    shards: list[list[str]],
    shapes: Mapping[str, Shape],
    dtype: torch.dtype,
    read: Callable[[str], Tensor],
    bar: ProgressBar | None,
) -> None:
    for file, names in zip(files, shards):
        with (directory / file).open("wb") as out:
            _write_header(out, {name: shapes[name] for name in names}, dtype)
            for name in names:
                data = as_bytes(read(name), shapes[name], dtype, name)
                out.write(data)
                if bar is not None:
                    bar.advance(data.nbytes / 1e6)


def _write_header(out: BinaryIO, shapes: Mapping[str, Shape], dtype: torch.dtype) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)


def as_bytes(tensor: Tensor, shape: Shape, dtype: torch.dtype, name: str) -> memoryview:
    """The tensor's values in `dtype`, row by row."""
    assert tensor.shape == shape, f"{name}: {tuple(tensor.shape)} where {shape} was announced"
    return narrowed(tensor, dtype, name).contiguous().flatten().view(torch.uint8).numpy().data


def narrowed(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """In `dtype`, on the CPU; ValueError if float16 cannot hold a value."""
    cast = tensor.detach().to("cpu", dtype)
    if dtype == torch.float16 and tensor.dtype != dtype and not bool(cast.isfinite().all()):
        raise ValueError(f"{name} holds values beyond float16's range; use --dtype bfloat16 or float32")
    return cast
