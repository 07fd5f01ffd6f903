"""llama.cpp's GGUF files, opened: memory-mapped, a tensor dequantised when it is asked for.

Taken: architecture `llama`, without RoPE scaling, with linear scaling, or with Llama 3's; every tensor type of TYPES (Q5_0 and
Q5_1 are what llama.cpp's K-quant files hold where a row is no multiple of 256). Quantised
tensors become float32 and are exactly gguf.dequantize's. F16 and BF16 keep their bits, as long as the norms, which GGUF
stores in float32, fit that type exactly (they were widened from it when the file was written); else all is float32.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from pydantic import ValidationError
from torch import Tensor

from ayni.config import ModelSettings, RopeScaling
from ayni.model.checkpoint import Checkpoint, Stored
from ayni.model.rope_layout import ROTATED, halved
from ayni.model.transformer import rope_frequencies
from ayni.text.gguf_tokenizer import files_from_gguf

LAYER_NAMES = {
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}
OUTER_NAMES = {"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output"}
ROPE_FACTORS = "rope_freqs.weight"  # what Llama 3's scaling divides each frequency by
LLAMA3_CONTEXT = 8192  # its original context, where the metadata does not say
TYPES = {
    Kind.F32,
    Kind.F16,
    Kind.BF16,
    Kind.Q8_0,
    Kind.Q4_0,
    Kind.Q4_1,
    Kind.Q5_0,
    Kind.Q5_1,
    Kind.Q4_K,
    Kind.Q5_K,
    Kind.Q6_K,
}
WORKING_TYPES = {Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}


def open_gguf(path: Path) -> Checkpoint:
    """The model and tokenizer in a GGUF file; ValueError says what is missing, truncated or not supported."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, OSError, KeyError, OverflowError) as error:
        raise ValueError(
            f"{path}: truncated or not a GGUF file that the gguf package knows ({error}); copy or download it again"
        ) from None
    if reader.byte_order == "S":
        raise ValueError(f"{path}: written for big-endian machines; download the little-endian file")
    if fields.get("split.count", 1) > 1:
        raise ValueError(f"{path}: one of {fields['split.count']} parts; join them with llama-gguf-split --merge first")
    tensors = {_our_name(tensor.name) or tensor.name: tensor for tensor in reader.tensors}
    factors = tensors.pop(ROPE_FACTORS, None)
    for tensor in tensors.values():
        if tensor.tensor_type not in TYPES:
            known = ", ".join(sorted(kind.name for kind in TYPES))
            raise ValueError(f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}; supported are {known}")
    settings = _settings(path, fields, "output.weight" not in tensors, factors)
    dtype = _working_type(list(tensors.values()))
    return Checkpoint(
        where=path,
        settings=settings,
        scalar=False,
        dtype=dtype,
        tensors={
            name: Stored(tuple(int(n) for n in reversed(tensor.shape)), f"{path}: tensor {tensor.name}")
            for name, tensor in tensors.items()
        },
        read=partial(_read, tensors, dtype, settings.d_head),
        tokenizer_files=files_from_gguf(fields, str(path)),
    )


def _working_type(tensors: list[Any]) -> torch.dtype:
    """The type of the matrices, if every value of the file is one of its own."""
    kinds = Counter(tensor.tensor_type for tensor in tensors if len(tensor.shape) == 2)
    dtype = WORKING_TYPES.get(kinds.most_common(1)[0][0], torch.float32) if kinds else torch.float32
    for tensor in tensors:
        if WORKING_TYPES.get(tensor.tensor_type) != dtype and dtype != torch.float32:
            wide = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), np.float32))
            if not torch.equal(wide.to(dtype).float(), wide):
                return torch.float32
    return dtype


def _read(tensors: dict[str, Any], dtype: torch.dtype, d: int, name: str) -> Tensor:
    """One tensor in our layout. GGUF keeps wq and wk in Meta's interleaved order."""
    tensor = tensors[name]
    if tensor.tensor_type == Kind.BF16:
        weight = torch.from_numpy(np.array(tensor.data)).view(torch.bfloat16)
    elif tensor.tensor_type in (Kind.F16, Kind.F32):
        weight = torch.from_numpy(np.array(tensor.data))
    else:
        weight = torch.from_numpy(np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32))
    weight = weight.to(dtype)
    return halved(weight, d) if name.endswith(ROTATED) else weight


def _our_name(name: str) -> str | None:
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk" and len(parts) == 3 and parts[2] in LAYER_NAMES:
        return f"layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    return f"{OUTER_NAMES[parts[0]]}.weight" if len(parts) == 1 and parts[0] in OUTER_NAMES else None


def _settings(path: Path, fields: dict[str, Any], tied: bool, factors: Any) -> ModelSettings:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{path}: architecture is {architecture!r}; supported is only 'llama'")
    if fields.get("llama.expert_count", 0):
        raise ValueError(
            f"{path}: a mixture of {fields['llama.expert_count']} experts; supported are dense models only"
        )
    try:
        heads = fields["llama.attention.head_count"]
        kv_heads = fields.get("llama.attention.head_count_kv", heads)
        if not isinstance(heads, int) or not isinstance(kv_heads, int):
            raise ValueError(f"{path}: the number of heads changes from layer to layer, which Llama models do not do")
        settings = ModelSettings(
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            dim=fields["llama.embedding_length"],
            n_layers=fields["llama.block_count"],
            n_heads=heads,
            n_kv_heads=kv_heads,
            ffn_dim=fields["llama.feed_forward_length"],
            head_dim=fields.get("llama.attention.key_length"),
            max_seq_len=fields["llama.context_length"],
            norm_eps=_shortest(fields["llama.attention.layer_norm_rms_epsilon"]),
            rope_theta=_shortest(fields.get("llama.rope.freq_base", 10_000.0)),
            tie_embeddings=tied,
        )
    except KeyError as error:
        raise ValueError(f"{path}: the metadata lacks {error}") from None
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, m['loc']))} {m['msg']}" for m in error.errors())
        raise ValueError(f"{path}: {mistakes}") from None
    if fields.get("llama.rope.dimension_count", settings.d_head) != settings.d_head:
        raise ValueError(f"{path}: RoPE on a part of each head is not supported")
    return _scaled(path, fields, settings, factors)


def _shortest(number: float) -> float:
    """GGUF stores float32: 9.999999747378752e-06 was written for 1e-5."""
    return float(str(np.float32(number)))


def _scaled(path: Path, fields: dict[str, Any], settings: ModelSettings, factors: Any) -> ModelSettings:
    """The settings with the RoPE scaling that the metadata, or the table of factors, asks for."""
    factor = _shortest(fields.get("llama.rope.scaling.factor") or fields.get("llama.rope.scale_linear") or 1.0)
    kind = fields.get("llama.rope.scaling.type", "linear" if factor != 1.0 else "none")  # as llama.cpp takes it
    original = fields.get("llama.rope.scaling.original_context_length")
    if kind not in ("none", "linear"):
        raise ValueError(f"{path}: RoPE scaling {kind!r} is not supported; supported: none, linear, Llama 3's factors")
    if factors is not None:
        return _llama3(path, settings, np.asarray(factors.data, np.float32), original or LLAMA3_CONTEXT)
    if kind == "none" or factor == 1.0:
        return settings
    # Written from Hugging Face's config, the context is the original one; where both are given, it is the stretched one.
    stretched = settings.max_seq_len if original else int(settings.max_seq_len * factor)
    scaling = RopeScaling(kind="linear", factor=factor, original_max_seq_len=original or settings.max_seq_len)
    return settings.model_copy(update={"rope_scaling": scaling, "max_seq_len": stretched})


def _llama3(path: Path, settings: ModelSettings, factors: np.ndarray, original: int) -> ModelSettings:
    """GGUF keeps Llama 3's scaling as a table; taken if it is the table of that formula with Llama 3's own constants."""
    factor = float(f"{factors.max():.6g}")  # of float32 divisions: 4.9999995 for 5
    scaling = RopeScaling(kind="llama3", factor=factor, original_max_seq_len=original)
    scaled = settings.model_copy(update={"rope_scaling": scaling})
    wanted = rope_frequencies(settings) / rope_frequencies(scaled)
    if wanted.shape != factors.shape or not np.allclose(wanted.numpy(), factors, rtol=1e-4):
        raise ValueError(
            f"{path}: tensor {ROPE_FACTORS} is not Llama 3's scaling by {scaling.factor:g} of a context of {original}; "
            "other tables are not supported"
        )
    return scaled
