"""A model for other programs: Hugging Face directories, llama.cpp's GGUF, Meta's release layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ayni.artifacts import writing_aside
from ayni.config import ExportSettings
from ayni.model.checkpoint import Checkpoint, check, check_vocabulary, open_checkpoint, write_checkpoint
from ayni.model.gguf_writer import GGUFKind, write_gguf
from ayni.model.meta import write_meta
from ayni.model.shards import narrowed
from ayni.scoring.reward import copy_parts
from ayni.telemetry import progress
from ayni.text.tokenizer import load_tokenizer

GGUF_KINDS: dict[str, GGUFKind] = {
    "auto": "f16",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "q8_0": "q8_0",
}


def run(settings: ExportSettings, model: Path, out: Path) -> Path:
    """Writes `model` (a directory of ours or any Hugging Face Llama directory) to `out`; returns the path written.

    For `gguf` the path is a file: `out` itself if it ends in .gguf, else NAME-KIND.gguf inside it.
    """
    if settings.dtype == "q8_0" and settings.to != "gguf":
        raise ValueError(f"--dtype q8_0 is a kind of GGUF; --to {settings.to} takes float32, bfloat16 or float16")
    if settings.parts > 1 and settings.to != "meta":
        raise ValueError(f"--parts {settings.parts} is for --to meta; a Hugging Face directory is sharded by size")
    model, out = model.resolve(), out.resolve()
    opened = open_checkpoint(model)
    check(opened)
    tokenizer = load_tokenizer(model)
    check_vocabulary(opened.settings, tokenizer, str(model))
    if settings.to == "gguf":
        kind = GGUF_KINDS[settings.dtype]
        name = model.resolve().name
        target = out if out.suffix == ".gguf" else out / f"{name}-{kind.upper()}.gguf"
        with writing_aside(target) as work, _followed(opened, passes=1) as source:
            try:
                write_gguf(source, work, tokenizer, kind, name)
            except OSError as error:
                if error.errno is None:  # numpy's, when it could not write all of an array
                    raise ValueError(f"{target}: could not be written ({error}); is the disk full?") from None
                raise
        return target
    dtype = opened.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    with writing_aside(out) as work:
        if settings.to == "hf":
            write_checkpoint(opened, work, dtype)
            if opened.scalar:
                copy_parts(model, work)
        else:
            with _followed(
                _cast(opened, dtype), settings.parts
            ) as source:  # each part reads every tensor for its share
                write_meta(source, work, tokenizer, settings.parts)
    return out


def _cast(opened: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    def read(name: str) -> Tensor:
        return narrowed(opened.read(name), dtype, name)

    return replace(opened, dtype=dtype, read=read)


@contextmanager
def _followed(opened: Checkpoint, passes: int) -> Iterator[Checkpoint]:
    """The same checkpoint, to be read `passes` times, with a progress bar that each tensor read moves on."""
    total = passes * sum(prod(stored.shape) for stored in opened.tensors.values())
    with progress("writing weights", total, "parameters") as bar:

        def read(name: str) -> Tensor:
            tensor = opened.read(name)
            bar.advance(tensor.numel())
            return tensor

        yield replace(opened, read=read)
