"""Hugging Face's side of a checkpoint: what config.json says, and what it calls our tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ayni.config import ModelSettings, RopeScaling
from ayni.text.dialogue import stop_ids
from ayni.text.tokenizer import Tokenizer

LANGUAGE, SCALAR = "LlamaForCausalLM", "LlamaForSequenceClassification"

LAYER_NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER_NAMES = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head", "score": "score"}
LLAMA3_FACTORS = {"low_freq_factor", "high_freq_factor"}


def hugging_face_name(name: str) -> str:
    """`layers.3.attention.wq.weight` -> `model.layers.3.self_attn.q_proj.weight`; a scalar head's `body.` is dropped."""
    stem = name.removeprefix("body.").removesuffix(".weight")
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.weight"
    _, index, inner = stem.split(".", 2)
    return f"model.layers.{index}.{LAYER_NAMES[inner]}.weight"


def our_name(foreign: str, scalar: bool) -> str | None:
    """The inverse of `hugging_face_name`; None for a tensor that no Llama model has."""
    stem = foreign.removesuffix(".weight")
    outer = {theirs: ours for ours, theirs in OUTER_NAMES.items()}
    inner = {theirs: ours for ours, theirs in LAYER_NAMES.items()}
    body = "body." if scalar and stem != "score" else ""
    if stem in outer:
        return f"{body}{outer[stem]}.weight"
    parts = stem.removeprefix("model.layers.").split(".", 1)
    if len(parts) == 2 and parts[0].isdecimal() and parts[1] in inner:
        return f"{body}layers.{parts[0]}.{inner[parts[1]]}.weight"
    return None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; ValueError naming the file if it is anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); copy or download the file again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write_object(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(directory: Path) -> dict[str, Any]:
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; a model is a Hugging Face directory with config.json and safetensors")
    return read_object(path)


def is_scalar(directory: Path) -> bool:
    """Whether the directory holds a scalar head rather than a language model."""
    return read_config(directory).get("architectures") == [SCALAR]


def read_settings(directory: Path) -> ModelSettings:
    """The architecture in config.json; ValueError on anything that this model cannot compute exactly."""
    path = Path(directory) / "config.json"
    config = read_config(directory)
    architectures = config.get("architectures") or []
    if architectures not in ([LANGUAGE], [SCALAR]):
        raise ValueError(f"{path}: architectures is {architectures}; supported: {LANGUAGE}, {SCALAR}")
    refused = {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "quantization_config": None}
    for key, only in refused.items():
        if config.get(key, only) != only:
            raise ValueError(f"{path}: {key} is {config[key]!r}; supported is only {only!r}")
    rope = config.get("rope_parameters") or {}
    positions, kv_heads = config.get("max_position_embeddings", 2048), config.get("num_key_value_heads")
    try:
        scaling, max_seq_len = _read_scaling(config.get("rope_scaling") or rope, positions)
        return ModelSettings(
            vocab_size=config["vocab_size"],
            dim=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            n_kv_heads=config["num_attention_heads"] if kv_heads is None else kv_heads,
            ffn_dim=config["intermediate_size"],
            head_dim=config.get("head_dim"),
            max_seq_len=max_seq_len,
            norm_eps=config.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
            rope_scaling=scaling,
            tie_embeddings=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error} is missing") from None
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, m['loc']))} {m['msg']}" for m in error.errors())
        raise ValueError(f"{path}: {mistakes}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None


def _read_scaling(scaling: dict[str, Any], positions: int) -> tuple[RopeScaling | None, int]:
    """RoPE scaling and the usable context. `max_position_embeddings` is the original context for `linear` and `dynamic`
    (as transformers computes and vLLM multiplies), the stretched one for `llama3`."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None, positions
    if kind in ("linear", "dynamic"):
        found = RopeScaling(kind=kind, factor=scaling["factor"], original_max_seq_len=positions)
        return found, int(positions * found.factor)
    if kind == "llama3":
        original = scaling.get("original_max_position_embeddings", positions)
        factors = {key: scaling[key] for key in LLAMA3_FACTORS}
        return RopeScaling(kind=kind, factor=scaling["factor"], original_max_seq_len=original, **factors), positions
    raise ValueError(f"RoPE scaling {kind!r} is not supported; supported: none, linear, dynamic, llama3")


def write_config(
    directory: Path, settings: ModelSettings, scalar: bool, dtype: str, tokenizer: Tokenizer | None
) -> None:
    """config.json and, for a language model, generation_config.json."""
    ids: dict[str, Any] = {}
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    rope, positions = _written_scaling(settings)
    config = {
        "architectures": [SCALAR if scalar else LANGUAGE],
        "model_type": "llama",
        "vocab_size": settings.vocab_size,
        "hidden_size": settings.dim,
        "intermediate_size": settings.ffn_dim,
        "num_hidden_layers": settings.n_layers,
        "num_attention_heads": settings.n_heads,
        "num_key_value_heads": settings.n_kv_heads,
        "head_dim": settings.d_head,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": settings.norm_eps,
        "rope_theta": settings.rope_theta,
        **rope,
        "attention_bias": False,
        "mlp_bias": False,
        # A scalar head has no output weights; a checkpoint of one must not promise any.
        "tie_word_embeddings": settings.tie_embeddings,
        "torch_dtype": dtype,
        **ids,
    }
    if scalar:
        config |= {"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": "regression"}
    write_object(directory / "config.json", config)
    if tokenizer is not None and not scalar:
        write_object(directory / "generation_config.json", ids | {"eos_token_id": list(stop_ids(tokenizer))})


def _written_scaling(settings: ModelSettings) -> tuple[dict[str, Any], int]:
    """The inverse of `_read_scaling`."""
    scaling = settings.rope_scaling
    if scaling is None:
        return {}, settings.max_seq_len
    rope: dict[str, Any] = {"rope_type": scaling.kind, "type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "llama3":
        return {"rope_scaling": rope}, scaling.original_max_seq_len
    rope |= {"original_max_position_embeddings": scaling.original_max_seq_len}
    rope |= {key: getattr(scaling, key) for key in sorted(LLAMA3_FACTORS)}
    return {"rope_scaling": rope}, settings.max_seq_len
