"""Models on disk. Ours are Hugging Face directories: what transformers, vLLM and llama.cpp's converter load as they are.

config.json (LlamaForCausalLM, or LlamaForSequenceClassification with one label for a scalar head), safetensors (sharded
by size, with an index), generation_config.json, tokenizer files. Equal models give equal bytes.

A `Checkpoint` is any format opened and not yet read: meta.py, gguf.py and llama2c.py open theirs, this file opens
Hugging Face's. Whatever was opened is written by `write_checkpoint`, one tensor at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ayni.config import ModelSettings, Precision
from ayni.model.heads import ScalarHead
from ayni.model.hugging_face import (
    LANGUAGE,
    SCALAR,
    hugging_face_name,
    is_scalar,
    our_name,
    read_config,
    read_object,
    read_settings,
    write_config,
)
from ayni.model.precision import working_type
from ayni.model.shards import SHARD_BYTES, TYPE_NAMES, Shape, write_shards
from ayni.model.transformer import Transformer
from ayni.text.tokenizer import FILES as TOKENIZER_FILES
from ayni.text.tokenizer import GENERATION, Tokenizer, tokenizer_of

VOCABULARY_SLACK = (
    0.025  # share of the embedding that may lie unused above the tokenizer's ids (padding to a round size)
)


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in its source."""

    shape: Shape  # in our layout: [out, in], as nn.Linear has it
    label: str  # "FILE: tensor NAME", for messages


@dataclass(frozen=True)
class Checkpoint:
    """Weights that are read when asked for, tensor by tensor, whatever the format they lie in."""

    where: Path
    settings: ModelSettings
    scalar: bool  # a scalar head: `body.` names and score.weight
    dtype: torch.dtype  # as stored; float32 where it was quantised
    tensors: Mapping[str, Stored]  # by our names; `output.weight` only where it is not tied
    read: Callable[[str], Tensor]  # our name -> our layout (halved RoPE rows)
    tokenizer_files: Mapping[str, bytes]  # empty where the source has none


class _Unfilled(TorchFunctionMode):
    """No start values: a tensor without storage has no room for them, and asking for the first one makes torch import
    its decompositions, which takes more than a second."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        fills = getattr(function, "__module__", None) == "torch.nn.init"
        return kwargs["tensor"] if fills else function(*args, **kwargs)


def empty_model(settings: ModelSettings, scalar: bool) -> Transformer | ScalarHead:
    """A model without storage, to be given weights."""
    with torch.device("meta"), _Unfilled():
        return ScalarHead(settings) if scalar else Transformer(settings)


def wanted_shapes(settings: ModelSettings, scalar: bool) -> dict[str, Shape]:
    """Every tensor that a checkpoint of this architecture holds, by our names, in the order of the forward pass."""
    shapes = {name: tuple(value.shape) for name, value in empty_model(settings, scalar).state_dict().items()}
    if settings.tie_embeddings:
        shapes.pop("output.weight", None)
    return shapes


def check(checkpoint: Checkpoint) -> None:
    """ValueError unless the tensors are exactly those that the architecture asks for."""
    layers = checkpoint.settings.n_layers
    if layers > len(checkpoint.tensors):  # before anything of that size is made
        raise ValueError(f"{checkpoint.where}: {layers} layers asked for, and {len(checkpoint.tensors)} tensors in all")
    wanted = wanted_shapes(checkpoint.settings, checkpoint.scalar)
    for name, stored in checkpoint.tensors.items():
        if name not in wanted:
            raise ValueError(f"{stored.label} is not part of the model that the configuration describes")
        if stored.shape != wanted[name]:
            raise ValueError(f"{stored.label}: the configuration asks for shape {wanted[name]}, found {stored.shape}")
    missing = [name for name in wanted if name not in checkpoint.tensors]
    if missing:
        raise ValueError(
            f"{checkpoint.where}: tensor {hugging_face_name(missing[0])} ({missing[0]}) is missing ({len(missing)} in all); "
            "the configuration asks for it. Copy or download the whole model again"
        )


def check_vocabulary(settings: ModelSettings, tokenizer: Tokenizer, where: str) -> None:
    """ValueError unless every id has an embedding and hardly any embedding lacks an id (some are padded to a round size)."""
    spare = settings.vocab_size - tokenizer.vocab_size
    if 0 <= spare <= VOCABULARY_SLACK * settings.vocab_size:
        return
    raise ValueError(
        f"{where}: the model has {settings.vocab_size} embeddings, the tokenizer {tokenizer.vocab_size} ids; "
        "use the tokenizer that the model was trained with"
    )


def open_checkpoint(directory: Path) -> Checkpoint:
    """A Hugging Face directory; ValueError names a file that is missing or truncated."""
    directory = Path(directory)
    settings, scalar = read_settings(directory), is_scalar(directory)
    shards: dict[str, safe_open] = {}
    tensors: dict[str, Stored] = {}
    types: dict[str, str] = {}
    heads: list[tuple[Path, safe_open]] = []  # where a tied output is stored nevertheless
    for file in _shard_files(directory):
        shard = _opened(file)
        for foreign, (shape, kind) in _contents(shard).items():
            follows = foreign == "lm_head.weight" and (settings.tie_embeddings or scalar)
            if follows and settings.tie_embeddings:
                heads.append((file, shard))
            if follows or foreign.endswith("rotary_emb.inv_freq"):
                continue  # what others store though it follows from config.json
            name = our_name(foreign, scalar) or foreign
            if kind not in TYPE_NAMES.values():
                raise ValueError(
                    f"{file}: tensor {foreign} is stored as {kind}; supported: {', '.join(TYPE_NAMES.values())}"
                )
            shards[name], tensors[name], types[name] = shard, Stored(shape, f"{file}: tensor {foreign}"), kind

    def read(name: str) -> Tensor:
        return shards[name].get_tensor(hugging_face_name(name))

    names = [*TOKENIZER_FILES, GENERATION]
    _refuse_untied(heads, shards, scalar)
    kinds = {kind: dtype for dtype, kind in TYPE_NAMES.items()}
    dtype = (
        kinds[next(iter(types.values()))] if len(set(types.values())) == 1 else torch.float32
    )  # which holds them all
    found = {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}
    ends = read_config(directory).get("eos_token_id")
    if isinstance(ends, list) and GENERATION not in found and not scalar:
        found[GENERATION] = json.dumps({"eos_token_id": ends}).encode()  # several ends: a tokenizer can name only one
    return Checkpoint(
        where=directory,
        settings=settings,
        scalar=scalar,
        dtype=dtype,
        tensors=tensors,
        read=read,
        tokenizer_files=found,
    )


def _refuse_untied(heads: list[tuple[Path, safe_open]], shards: Mapping[str, safe_open], scalar: bool) -> None:
    """config.json says that the output is the embedding; where it is stored as well, it must be."""
    name = "body.tok_embeddings.weight" if scalar else "tok_embeddings.weight"
    for file, head in heads:
        if not torch.equal(head.get_tensor("lm_head.weight"), shards[name].get_tensor("model.embed_tokens.weight")):
            raise ValueError(
                f"{file}: tensor lm_head.weight differs from model.embed_tokens.weight, though config.json says "
                "tie_word_embeddings; correct the one that is wrong"
            )


def _shard_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file() or (directory / "model.safetensors").is_file():  # transformers, too, prefers the one file
        files = [directory / "model.safetensors"]
    else:
        where = read_object(index).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
            raise ValueError(f"{index}: no weight_map; copy or download the file again")
        files = [directory / Path(name).name for name in sorted(set(where.values()))]
    for file in files:
        if not file.is_file():
            pickled = sorted(directory.glob("pytorch_model*.bin"))
            hint = "copy or download the whole model directory again"
            if pickled:
                hint = f"{pickled[0].name} is a pickle, which is never opened here: save the model as safetensors"
            raise ValueError(f"{file}: missing; {hint}")
    return files


def _opened(file: Path) -> safe_open:
    """Tensors are read, not mapped: a mapped page is fetched by a fault of its own (four times the time), counts as our
    memory while the file stays open, and changes when a later save writes the file."""
    try:
        return safe_open(file, framework="pt", backend="pread")
    except SafetensorError as error:
        raise ValueError(f"{file}: truncated or not a safetensors file ({error}); copy or download it again") from None


def _contents(shard: safe_open) -> dict[str, tuple[Shape, str]]:
    """Shape and type (safetensors' name for it) of every tensor."""
    slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118 (not a mapping)
    return {name: (tuple(piece.get_shape()), piece.get_dtype()) for name, piece in slices.items()}


def write_checkpoint(
    checkpoint: Checkpoint,
    directory: Path,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """A Hugging Face directory of what was opened, in `dtype` (None: as stored), one tensor in memory at a time.

    The tensors' names and shapes and the tokenizer's size are checked before anything is written.
    """
    check(checkpoint)
    files = checkpoint.tokenizer_files
    tokenizer = None
    if {"tokenizer.model", "tokenizer.json"} & set(files):
        tokenizer = tokenizer_of(files, checkpoint.where)
        check_vocabulary(checkpoint.settings, tokenizer, str(checkpoint.where))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = dtype or checkpoint.dtype
    _write(directory, checkpoint.settings, checkpoint.scalar, dtype, tokenizer, checkpoint.read, shard_bytes)
    for name, data in files.items():  # generation_config.json, too: the source's own, with whatever else it says
        (directory / name).write_bytes(data)


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
    own = model.state_dict() if state is None else state
    scalar = isinstance(model, ScalarHead)
    dtype = own["body.norm.weight" if scalar else "norm.weight"].dtype
    if tokenizer is not None:
        tokenizer.save(directory)
    _write(directory, model.settings, scalar, dtype, tokenizer, own.__getitem__, shard_bytes)


def _write(
    directory: Path,
    settings: ModelSettings,
    scalar: bool,
    dtype: torch.dtype,
    tokenizer: Tokenizer | None,
    read: Callable[[str], Tensor],
    shard_bytes: int,
) -> None:
    write_config(directory, settings, scalar, str(dtype).removeprefix("torch."), tokenizer)
    shapes = wanted_shapes(settings, scalar)
    ours = {hugging_face_name(name): name for name in shapes}
    foreign_shapes = {foreign: shapes[name] for foreign, name in ours.items()}
    write_shards(directory, foreign_shapes, dtype, lambda foreign: read(ours[foreign]), shard_bytes)


def load_model(directory: Path, dtype: torch.dtype | Precision = torch.float32) -> Transformer:
    """A language model from a Hugging Face directory; `dtype` may be a setting: "auto" suits size and machine."""
    model = _load(Path(directory), LANGUAGE, dtype)
    assert isinstance(model, Transformer)
    return model


def load_scalar(directory: Path, dtype: torch.dtype | Precision = torch.float32) -> ScalarHead:
    """A reward model or critic from a Hugging Face directory; `dtype` as for `load_model`."""
    model = _load(Path(directory), SCALAR, dtype)
    assert isinstance(model, ScalarHead)
    return model


def _load(directory: Path, kind: str, dtype: torch.dtype | Precision) -> Transformer | ScalarHead:
    read_settings(directory)
    if is_scalar(directory) != (kind == SCALAR):
        found = SCALAR if kind == LANGUAGE else LANGUAGE
        raise ValueError(f"{directory / 'config.json'}: this is a {found}, expected a {kind}; name another directory")
    checkpoint = open_checkpoint(directory)
    check(checkpoint)
    model = empty_model(checkpoint.settings, checkpoint.scalar)
    if isinstance(dtype, str):
        dtype = working_type(dtype, sum(parameter.numel() for parameter in model.parameters()), torch.device("cpu"))
    # Copies: safetensors hands out Python's buffers; torch's own lie on 64-byte boundaries, without which MKL may round otherwise.
    state = {name: checkpoint.read(name).to(dtype, copy=True) for name in checkpoint.tensors}
    if checkpoint.settings.tie_embeddings and isinstance(model, Transformer):
        state["output.weight"] = state["tok_embeddings.weight"]
    model.load_state_dict(state, assign=True)
    (model if isinstance(model, Transformer) else model.body).finish()
    return model
