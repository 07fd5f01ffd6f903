"""llama.cpp's GGUF files: dequantised once into a Hugging Face directory that the rest of Ayni reads.

Taken: the `llama` architecture without RoPE scaling, any tensor type that the gguf package dequantises (F32, F16, BF16,
Q8_0, Q4_0, Q4_1, K-quants, ...), GPT-2-style BPE tokenizers whose pre-tokenizer stands in PRE_TOKENIZERS.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
from gguf.quants import dequantize
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from torch import Tensor

from ayni.config import ModelSettings
from ayni.model.checkpoint import save_model
from ayni.model.transformer import Transformer
from ayni.text.tokenizer import load_tokenizer

LAYER_NAMES = {
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}
OUTER_NAMES = {"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output"}

# How text is cut before the merges, by GGUF's name for it. ByteLevel brings GPT-2's regular expression.
PRE_TOKENIZERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
CONTROL, USER_DEFINED = 3, 4  # GGUF's token types

# Without the default system message that some templates add: what is trained is what the user wrote.
CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def import_gguf(path: Path, out_dir: Path) -> None:
    """Writes the model (fp32) and its tokenizer to `out_dir`. Values are exactly gguf.dequantize's.

    GGUF keeps wq and wk in Meta's interleaved RoPE layout: rows (2i, 2i+1) of a head become (i, i + d/2) (TRAPS 15).
    """
    path, out_dir = Path(path), Path(out_dir)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, OSError) as error:
        raise ValueError(f"{path}: truncated or not a GGUF file ({error}); copy or download it again") from None
    fields = {name: field.contents() for name, field in reader.fields.items()}
    names = {tensor.name for tensor in reader.tensors}
    settings = _settings(path, fields, tied="output.weight" not in names)
    state: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        name = _our_name(tensor.name)
        if name is None:
            raise ValueError(f"{path}: tensor {tensor.name} is not part of a plain Llama model")
        try:
            values = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        except NotImplementedError:
            raise ValueError(
                f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}, which gguf cannot dequantise"
            ) from None
        if name.endswith(("wq.weight", "wk.weight")):
            values = _halved(values, settings.d_head)
        state[name] = torch.from_numpy(values)
    with torch.device("meta"):
        model = Transformer(settings)
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    if settings.tie_embeddings:
        wanted.pop("output.weight")
    for name, shape in wanted.items():
        if name not in state or state[name].shape != shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise ValueError(f"{path}: tensor for {name}: the metadata asks for {tuple(shape)}, found {found}")
    out_dir.mkdir(parents=True, exist_ok=True)
    for file, data in _tokenizer_files(path, fields).items():
        (out_dir / file).write_bytes(data)
    save_model(model, out_dir, load_tokenizer(out_dir), state=state)


def _our_name(name: str) -> str | None:
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk" and len(parts) == 3 and parts[2] in LAYER_NAMES:
        return f"layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    return f"{OUTER_NAMES[parts[0]]}.weight" if len(parts) == 1 and parts[0] in OUTER_NAMES else None


def _halved(weight: np.ndarray, d: int) -> np.ndarray:
    heads, width = weight.shape[0] // d, weight.shape[1]
    return np.ascontiguousarray(weight.reshape(heads, d // 2, 2, width).swapaxes(1, 2)).reshape(heads * d, width)


def _settings(path: Path, fields: dict[str, Any], tied: bool) -> ModelSettings:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{path}: architecture is {architecture!r}; supported is only 'llama'")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"{path}: RoPE scaling {scaling!r} is not supported; expected none (Llama 1 and 2, SmolLM2)")
    try:
        settings = ModelSettings(
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            dim=fields["llama.embedding_length"],
            n_layers=fields["llama.block_count"],
            n_heads=fields["llama.attention.head_count"],
            n_kv_heads=fields.get("llama.attention.head_count_kv", fields["llama.attention.head_count"]),
            ffn_dim=fields["llama.feed_forward_length"],
            head_dim=fields.get("llama.attention.key_length"),
            max_seq_len=fields["llama.context_length"],
            # Stored as fp32: 9.999999747378752e-06 was written for 1e-5.
            norm_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
            rope_theta=fields.get("llama.rope.freq_base", 10_000.0),
            tie_embeddings=tied,
        )
    except KeyError as error:
        raise ValueError(f"{path}: the metadata lacks {error}") from None
    if fields.get("llama.rope.dimension_count", settings.d_head) != settings.d_head:
        raise ValueError(f"{path}: RoPE on a part of each head is not supported")
    return settings


def _tokenizer_files(path: Path, fields: dict[str, Any]) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json from the metadata."""
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in PRE_TOKENIZERS:
        raise ValueError(
            f"{path}: tokenizer {kind!r} with pre-tokenizer {cut!r} is not supported; "
            f"expected 'gpt2' with one of {', '.join(PRE_TOKENIZERS)}"
        )
    pieces, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]],
        )
    )
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[cut]
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(p, normalized=False, special=True) for p, kind in zip(pieces, types) if kind == CONTROL]
    )
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p, kind in zip(pieces, types) if kind == USER_DEFINED])

    def named(key: str) -> str | None:
        number = fields.get(f"tokenizer.ggml.{key}_token_id")
        return None if number is None else pieces[number]

    bos, eos, unknown, pad = (named(key) for key in ("bos", "eos", "unknown", "padding"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unknown,
        "pad_token": pad if pad != eos else unknown,  # padding is never EOS (TRAPS 10)
        "clean_up_tokenization_spaces": False,
    }
    if "<|im_start|>" in pieces:
        config["chat_template"] = CHATML_TEMPLATE
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode(),
    }
