"""Models on disk as Hugging Face directories: what transformers, vLLM and llama.cpp's converter load as they are.

config.json (LlamaForCausalLM, or LlamaForSequenceClassification with one label for a scalar head), safetensors (sharded
by size, with an index), generation_config.json, tokenizer files. Equal models give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ayni.config import ModelSettings
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.text.dialogue import stop_ids
from ayni.text.tokenizer import Tokenizer

LANGUAGE, SCALAR = "LlamaForCausalLM", "LlamaForSequenceClassification"
SHARD_BYTES = 5_000_000_000
VOCABULARY_SLACK = (
    0.025  # share of the embedding that may lie unused above the tokenizer's ids (padding to a round size)
)

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


def hugging_face_name(name: str) -> str:
    """`layers.3.attention.wq.weight` -> `model.layers.3.self_attn.q_proj.weight`; a scalar head's `body.` is dropped."""
    stem = name.removeprefix("body.").removesuffix(".weight")
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.weight"
    _, index, inner = stem.split(".", 2)
    return f"model.layers.{index}.{LAYER_NAMES[inner]}.weight"


def save_model(
    model: Transformer | ScalarHead,
    directory: Path,
    tokenizer: Tokenizer | None = None,
    state: Mapping[str, Tensor] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes the directory. `state`: the weights under our names where the model's own are sharded over ranks."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    settings = model.settings
    scalar = isinstance(model, ScalarHead)
    own = dict(model.state_dict() if state is None else state)
    if settings.tie_embeddings:
        own.pop("output.weight", None)
    tensors = {hugging_face_name(name): own[name].detach().cpu().contiguous() for name in own}
    dtype = str(tensors["model.norm.weight"].dtype).removeprefix("torch.")
    write_config(directory, settings, scalar, dtype, tokenizer)
    _write_shards(directory, dict(sorted(tensors.items())), shard_bytes)
    if tokenizer is not None:
        tokenizer.save(directory)


def write_config(
    directory: Path, settings: ModelSettings, scalar: bool, dtype: str, tokenizer: Tokenizer | None
) -> None:
    """config.json and, for a language model, generation_config.json."""
    ids: dict[str, Any] = {}
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
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
        "max_position_embeddings": settings.max_seq_len,
        "rms_norm_eps": settings.norm_eps,
        "rope_theta": settings.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        # A scalar head has no output weights; a checkpoint of one must not promise any.
        "tie_word_embeddings": settings.tie_embeddings,
        "torch_dtype": dtype,
        **ids,
    }
    if scalar:
        config |= {"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": "regression"}
    _write_json(directory / "config.json", config)
    if tokenizer is not None and not scalar:
        _write_json(directory / "generation_config.json", ids | {"eos_token_id": list(stop_ids(tokenizer))})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_shards(directory: Path, tensors: dict[str, Tensor], shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.nbytes > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors", metadata={"format": "pt"})
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def load_model(directory: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    """A language model from a Hugging Face directory."""
    with torch.device("meta"):
        model = Transformer(_settings_of(Path(directory), LANGUAGE))
    _fill(model, Path(directory), dtype)
    model.finish()
    return model


def load_scalar(directory: Path, dtype: torch.dtype = torch.float32) -> ScalarHead:
    """A reward model or critic from a Hugging Face directory."""
    with torch.device("meta"):
        model = ScalarHead(_settings_of(Path(directory), SCALAR))
    _fill(model, Path(directory), dtype)
    model.body.finish()
    return model


def is_scalar(directory: Path) -> bool:
    """Whether the directory holds a scalar head rather than a language model."""
    return _read_config(Path(directory)).get("architectures") == [SCALAR]


def _settings_of(directory: Path, wanted: str) -> ModelSettings:
    settings = read_settings(directory)
    if is_scalar(directory) != (wanted == SCALAR):
        found = SCALAR if wanted == LANGUAGE else LANGUAGE
        raise ValueError(f"{directory / 'config.json'}: this is a {found}, expected a {wanted}; name another directory")
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); copy or download the file again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; a model is a Hugging Face directory with config.json and safetensors")
    return _read_json(path)


def read_settings(directory: Path) -> ModelSettings:
    """The architecture in config.json; ValueError on anything that this model cannot compute exactly."""
    directory = Path(directory)
    path = directory / "config.json"
    config = _read_config(directory)
    architectures = config.get("architectures") or []
    if architectures not in ([LANGUAGE], [SCALAR]):
        raise ValueError(f"{path}: architectures is {architectures}; supported: {LANGUAGE}, {SCALAR}")
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ValueError(f"{path}: RoPE scaling {kind!r} is not supported; expected none (Llama 1 and 2, SmolLM2)")
    refused = {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "quantization_config": None}
    for key, only in refused.items():
        if config.get(key, only) != only:
            raise ValueError(f"{path}: {key} is {config[key]!r}; supported is only {only!r}")
    try:
        return ModelSettings(
            vocab_size=config["vocab_size"],
            dim=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            n_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            ffn_dim=config["intermediate_size"],
            head_dim=config.get("head_dim"),
            max_seq_len=config.get("max_position_embeddings", 2048),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
            tie_embeddings=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error} is missing") from None


def _shard_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        files = [directory / "model.safetensors"]
    else:
        where = _read_json(index).get("weight_map")
        if not isinstance(where, dict):
            raise ValueError(f"{index}: no weight_map; copy or download the file again")
        files = [directory / name for name in sorted(set(where.values()))]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file}: missing; copy or download the whole model directory again")
    return files


def _read_tensors(file: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                # A copy: safetensors hands out pages of the file itself, which a later save would change.
                yield name, tensors.get_tensor(name).to(dtype, copy=True)
    except SafetensorError as error:
        raise ValueError(f"{file}: truncated or not a safetensors file ({error}); copy or download it again") from None


def _fill(model: Transformer | ScalarHead, directory: Path, dtype: torch.dtype) -> None:
    """Gives a model on the meta device its weights; every tensor's name and shape is checked."""
    wanted = {hugging_face_name(name): (name, value.shape) for name, value in model.state_dict().items()}
    if model.settings.tie_embeddings:
        wanted.pop("lm_head.weight", None)
    state: dict[str, Tensor] = {}
    files = _shard_files(directory)
    for file in files:
        for foreign, tensor in _read_tensors(file, dtype):
            if foreign.endswith("rotary_emb.inv_freq") or (foreign == "lm_head.weight" and foreign not in wanted):
                continue  # what others store though it follows from config.json
            if foreign not in wanted:
                raise ValueError(f"{file}: tensor {foreign} is not part of the model that config.json describes")
            name, shape = wanted[foreign]
            if tensor.shape != shape:
                raise ValueError(
                    f"{file}: tensor {foreign}: config.json asks for shape {tuple(shape)}, found {tuple(tensor.shape)}"
                )
            state[name] = tensor
    missing = [foreign for foreign, (name, _) in wanted.items() if name not in state]
    if missing:
        raise ValueError(
            f"{files[-1]}: tensor {missing[0]} is missing ({len(missing)} in all); config.json asks for it"
        )
    if model.settings.tie_embeddings and isinstance(model, Transformer):
        state["output.weight"] = state["tok_embeddings.weight"]
    model.load_state_dict(state, assign=True)


def check_vocabulary(settings: ModelSettings, tokenizer: Tokenizer, where: str) -> None:
    """ValueError unless every id has an embedding and hardly any embedding lacks an id (some are padded to a round size)."""
    spare = settings.vocab_size - tokenizer.vocab_size
    if 0 <= spare <= VOCABULARY_SLACK * settings.vocab_size:
        return
    raise ValueError(
        f"{where}: the model has {settings.vocab_size} embeddings, the tokenizer {tokenizer.vocab_size} ids; "
        "use the tokenizer that the model was trained with"
    )
