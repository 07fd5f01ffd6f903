"""A model as one GGUF file that llama.cpp runs: weights, tokenizer and chat template, with the keys of its own converter."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType as FileType
from gguf.quants import quantize
from torch import Tensor

from ayni.artifacts import writing_aside
from ayni.config import ModelSettings
from ayni.model.checkpoint import Checkpoint, check
from ayni.model.gguf import LAYER_NAMES, OUTER_NAMES, ROPE_FACTORS
from ayni.model.rope_layout import ROTATED, interleaved
from ayni.model.shards import narrowed
from ayni.model.transformer import rope_frequencies
from ayni.text.gguf_tokenizer import gguf_fields
from ayni.text.tokenizer import Tokenizer

GGUFKind = Literal["f32", "f16", "bf16", "q8_0"]
KINDS = {
    "f32": (Kind.F32, FileType.ALL_F32),
    "f16": (Kind.F16, FileType.MOSTLY_F16),
    "bf16": (Kind.BF16, FileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, FileType.MOSTLY_Q8_0),
}
Q8_BLOCK = 32  # a row must be a multiple of this; other matrices stay F16, as llama.cpp's converter does


def write_gguf(checkpoint: Checkpoint, path: Path, tokenizer: Tokenizer, kind: GGUFKind, name: str) -> None:
    """Writes `path`, one tensor in memory at a time, published whole; norms are float32, as llama.cpp wants them.

    ValueError for what GGUF's `llama` architecture cannot say: a scalar head, dynamic RoPE scaling, a tokenizer that
    llama.cpp has no name for.
    """
    settings, where = checkpoint.settings, checkpoint.where
    if checkpoint.scalar:
        raise ValueError(f"{where}: a reward model has no place in GGUF's llama architecture; export it with --to hf")
    if settings.rope_scaling is not None and settings.rope_scaling.kind == "dynamic":
        raise ValueError(f"{where}: llama.cpp has no dynamic RoPE scaling; export with --to hf")
    check(checkpoint)
    fields = gguf_fields(tokenizer)
    with writing_aside(path) as work, closing(gguf.GGUFWriter(work, "llama")) as writer:
        _add_settings(writer, settings, name, kind)
        _add_fields(writer, fields, settings.vocab_size)
        _write_tensors(writer, checkpoint, kind)


def _write_tensors(writer: gguf.GGUFWriter, checkpoint: Checkpoint, kind: GGUFKind) -> None:
    settings = checkpoint.settings
    factors = _rope_factors(settings)
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    foreign = {ours: _gguf_name(ours) for ours in checkpoint.tensors}
    kinds = {ours: _kind(stored.shape, kind) for ours, stored in checkpoint.tensors.items()}
    for ours, stored in checkpoint.tensors.items():
        shape = gguf.quant_shape_to_byte_shape(stored.shape, kinds[ours])
        size = int(np.prod(shape))
        writer.add_tensor_info(foreign[ours], shape, np.dtype(np.uint8), size, kinds[ours])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for ours in checkpoint.tensors:
        weight = checkpoint.read(ours)
        if ours.endswith(ROTATED):
            weight = interleaved(weight, settings.d_head)
        writer.write_tensor_data(_data(weight, kinds[ours], foreign[ours]))


def _kind(shape: tuple[int, ...], kind: GGUFKind) -> Kind:
    if len(shape) == 1:
        return Kind.F32
    return Kind.F16 if kind == "q8_0" and shape[1] % Q8_BLOCK else KINDS[kind][0]


def _data(weight: Tensor, kind: Kind, name: str) -> np.ndarray[Any, Any]:
    """The tensor's bytes as GGUF stores them."""
    if kind == Kind.Q8_0:
        return quantize(weight.float().contiguous().numpy(), kind)
    dtype = {Kind.F32: torch.float32, Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}[kind]
    return narrowed(weight, dtype, name).contiguous().view(torch.uint8).numpy()


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    outer = {ours: foreign for foreign, ours in OUTER_NAMES.items()}
    if stem in outer:
        return f"{outer[stem]}.weight"
    layer = {ours: foreign for foreign, ours in LAYER_NAMES.items()}
    _, index, inner = stem.split(".", 2)
    return f"blk.{index}.{layer[inner]}.weight"


def _add_settings(writer: gguf.GGUFWriter, settings: ModelSettings, name: str, kind: GGUFKind) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(KINDS[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(settings.vocab_size)
    writer.add_context_length(settings.max_seq_len)
    writer.add_embedding_length(settings.dim)
    writer.add_block_count(settings.n_layers)
    writer.add_feed_forward_length(settings.ffn_dim)
    writer.add_head_count(settings.n_heads)
    writer.add_head_count_kv(settings.n_kv_heads)
    writer.add_key_length(settings.d_head)
    writer.add_value_length(settings.d_head)
    writer.add_layer_norm_rms_eps(settings.norm_eps)
    writer.add_rope_freq_base(settings.rope_theta)
    writer.add_rope_dimension_count(settings.d_head)
    scaling = settings.rope_scaling
    if scaling is not None:
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_seq_len)
        if scaling.kind == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling.factor)


def _rope_factors(settings: ModelSettings) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Llama 3's scaling as llama.cpp wants it: what each pair's frequency is divided by."""
    if settings.rope_scaling is None or settings.rope_scaling.kind != "llama3":
        return None
    plain = settings.model_copy(update={"rope_scaling": None})
    return (rope_frequencies(plain) / rope_frequencies(settings)).numpy().astype(np.float32)


def _add_fields(writer: gguf.GGUFWriter, fields: dict[str, Any], vocab_size: int) -> None:
    """The tokenizer, its list of pieces made as long as the embedding: llama.cpp takes the vocabulary's size from it."""
    missing = vocab_size - len(fields["tokenizer.ggml.tokens"])
    padded: dict[str, list[Any]] = {
        "tokenizer.ggml.tokens": [f"[PAD{vocab_size - missing + i}]" for i in range(missing)],
        "tokenizer.ggml.token_type": [int(gguf.TokenType.UNUSED)] * missing,
        "tokenizer.ggml.scores": [-1000.0] * missing,
    }
    lists: dict[str, list[Any]] = {key: value for key, value in fields.items() if isinstance(value, list)}
    for key, values in lists.items():
        writer.add_array(key, [*values, *padded.get(key, [])])
    for key, value in fields.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
