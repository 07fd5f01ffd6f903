"""llama2.c's `.bin` checkpoints (the legacy header): seven int32, then float32 tensors, each kind over all layers.

dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: the classifier is not shared), seq_len
"""

from __future__ import annotations

import math
import struct
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ayni.config import ModelSettings
from ayni.model.checkpoint import Checkpoint, Stored
from ayni.model.rope_layout import ROTATED, halved
from ayni.text.hf_tokenizer import hugging_face_files
from ayni.text.llama2c_tokenizer import files_from_llama2c
from ayni.text.tokenizer import FILES as TOKENIZER_FILES

HEADER = struct.Struct("<7i")
MAGIC = b"24ka"  # "ak42" as a little-endian uint32 begins the newer formats
NORM_EPS = 1e-5  # llama2.c's own constant


def open_llama2c(path: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The model at `path`. `tokenizer`: tokenizer.bin, tokenizer.model or tokenizer.json, or a directory with one; default: beside it."""
    path = Path(path)
    settings = _settings(path)
    wanted, found = _end(settings), path.stat().st_size
    if found != wanted:
        raise ValueError(
            f"{path}: its header asks for {wanted:,} bytes, the file has {found:,}: truncated, or not a llama2.c model"
        )
    offsets = _offsets(settings)
    return Checkpoint(
        where=path,
        settings=settings,
        scalar=False,
        dtype=torch.float32,
        tensors={name: Stored(shape, f"{path}: tensor {name}") for name, (_, shape) in offsets.items()},
        read=partial(_read, path, offsets, settings.d_head),
        tokenizer_files=_tokenizer_files(path, tokenizer, settings.vocab_size),
    )


def _settings(path: Path) -> ModelSettings:
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if header[:4] == MAGIC:
        raise ValueError(
            f"{path}: a llama2.c file of version 1 or 2; supported is the legacy format (version 0 of its export.py)"
        )
    if len(header) < HEADER.size:
        raise ValueError(f"{path}: {len(header)} bytes; a llama2.c model begins with a header of {HEADER.size}")
    dim, hidden, n_layers, n_heads, n_kv_heads, vocab, seq_len = HEADER.unpack(header)
    numbers = (dim, hidden, n_layers, n_heads, n_kv_heads, abs(vocab), seq_len)
    if not all(0 < number < 2**24 for number in numbers) or dim % n_heads or n_heads % n_kv_heads:
        raise ValueError(f"{path}: its header reads {HEADER.unpack(header)}: not a llama2.c model")
    try:
        return ModelSettings(
            vocab_size=abs(vocab),
            dim=dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            ffn_dim=hidden,
            max_seq_len=seq_len,
            norm_eps=NORM_EPS,
            tie_embeddings=vocab > 0,
        )
    except ValidationError as error:
        mistakes = "; ".join(m["msg"] for m in error.errors())
        raise ValueError(f"{path}: its header reads {HEADER.unpack(header)}: {mistakes}") from None


def _offsets(s: ModelSettings) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Where each tensor begins, in bytes, and its shape."""
    kv = s.n_kv_heads * s.d_head
    order: list[tuple[str, tuple[int, ...]]] = [("tok_embeddings", (s.vocab_size, s.dim))]
    per_layer: list[tuple[str, tuple[int, ...]]] = [
        ("attention_norm", (s.dim,)),
        ("attention.wq", (s.dim, s.dim)),
        ("attention.wk", (kv, s.dim)),
        ("attention.wv", (kv, s.dim)),
        ("attention.wo", (s.dim, s.dim)),
        ("ffn_norm", (s.dim,)),
        ("feed_forward.w1", (s.ffn_dim, s.dim)),
        ("feed_forward.w2", (s.dim, s.ffn_dim)),
        ("feed_forward.w3", (s.ffn_dim, s.dim)),
    ]
    for kind, shape in per_layer:
        order += [(f"layers.{layer}.{kind}", shape) for layer in range(s.n_layers)]
    order.append(("norm", (s.dim,)))
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    offset = HEADER.size
    for name, shape in order:
        found[f"{name}.weight"] = (offset, shape)
        offset += math.prod(shape) * 4
    if not s.tie_embeddings:
        found["output.weight"] = (offset + _tables(s), (s.vocab_size, s.dim))
    return found


def _tables(s: ModelSettings) -> int:
    """Bytes of the cosines and sines that old versions stored and newer ones skip."""
    return s.max_seq_len * s.d_head * 4


def _end(s: ModelSettings) -> int:
    """Bytes of the whole file."""
    attention = 2 * s.dim * s.dim + 2 * s.n_kv_heads * s.d_head * s.dim
    layer = 2 * s.dim + attention + 3 * s.ffn_dim * s.dim
    embeddings = s.vocab_size * s.dim * (1 if s.tie_embeddings else 2)
    return HEADER.size + 4 * (embeddings + s.n_layers * layer + s.dim) + _tables(s)


def _read(path: Path, offsets: dict[str, tuple[int, tuple[int, ...]]], d: int, name: str) -> Tensor:
    offset, shape = offsets[name]
    weight = torch.from_numpy(np.fromfile(path, "<f4", math.prod(shape), offset=offset).reshape(shape))
    return halved(weight, d) if name.endswith(ROTATED) else weight


def _tokenizer_files(path: Path, given: Path | None, vocab_size: int) -> dict[str, bytes]:
    if given is not None and not given.exists():
        raise ValueError(f"{given}: no such file or directory")
    folder = path.parent if given is None else given
    if folder.is_dir():
        known = ("tokenizer.bin", "tokenizer.model", "tokenizer.json")
        given = next((folder / name for name in known if (folder / name).is_file()), None)
        if given is None:
            return {}
    assert given is not None
    data = given.read_bytes()
    if given.suffix == ".bin":
        return files_from_llama2c(data, vocab_size, str(given))
    if given.suffix == ".model":
        return {"tokenizer.model": data} | hugging_face_files(data)
    if given.suffix != ".json":
        raise ValueError(f"{given}: expected tokenizer.bin, tokenizer.model or tokenizer.json, or a directory with one")
    beside = {name: (given.parent / name).read_bytes() for name in TOKENIZER_FILES if (given.parent / name).is_file()}
    return beside | {"tokenizer.json": data}
