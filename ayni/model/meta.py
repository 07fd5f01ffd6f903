"""Meta's release layout, in and out: params.json, consolidated.NN.pth (one file per model-parallel part), tokenizer.model.

The parts of a tensor are cut along the axis that its parallel layer in Meta's code cuts: outputs (wq, wk, wv, w1, w3, output: rows),
inputs (wo, w2: columns), embeddings by width (Llama 2) or by vocabulary (Llama 3). RoPE rows are interleaved (TRAPS 15).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ayni.config import ModelSettings, RopeScaling, ffn_dim
from ayni.model.checkpoint import Checkpoint, Stored, check, wanted_shapes
from ayni.model.hugging_face import read_object, write_object
from ayni.model.rope_layout import ROTATED, halved, interleaved
from ayni.model.shards import TYPE_NAMES
from ayni.text.hf_tokenizer import hugging_face_files
from ayni.text.tokenizer import FILES as TOKENIZER_FILES
from ayni.text.tokenizer import Tokenizer

BY_ROWS = ("wq.weight", "wk.weight", "wv.weight", "w1.weight", "w3.weight", "output.weight")
BY_COLUMNS = ("wo.weight", "w2.weight")
EMBEDDING = "tok_embeddings.weight"
FIRST_WQ, FIRST_W1 = "layers.0.attention.wq.weight", "layers.0.feed_forward.w1.weight"
LLAMA31 = RopeScaling(kind="llama3", factor=8.0, original_max_seq_len=8192)  # what `use_scaled_rope` stands for
LLAMA32 = RopeScaling(kind="llama3", factor=32.0, original_max_seq_len=8192)
LLAMA32_SHAPES = {(2048, 16), (3072, 28)}  # (dim, n_layers): the files do not tell which of the two they mean
PLAIN = ("dim", "n_layers", "n_heads", "norm_eps")
KNOWN = {*PLAIN, "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "rope_theta", "use_scaled_rope",
         "max_seq_len", "max_batch_size"}  # fmt: skip
Parts = Sequence[Mapping[str, Tensor]]


def open_meta(directory: Path, tokenizer: Path | None = None, max_seq_len: int = 4096) -> Checkpoint:
    """The checkpoint in `directory`; a tensor's parts are joined when it is asked for.

    `tokenizer`: its file or directory, where it does not lie with the weights. `max_seq_len`: Meta's files do not say.
    """
    directory = Path(directory)
    files = _part_files(directory)
    parts = [_open_part(file) for file in files]
    settings = _settings(directory / "params.json", parts, max_seq_len)
    names = [name for name in parts[0] if name != "output.weight" or not settings.tie_embeddings]
    return Checkpoint(
        where=directory,
        settings=settings,
        scalar=False,
        dtype=_working_type(files, parts),
        tensors={name: Stored(_shape(files, parts, name, settings), f"{files[0]}: tensor {name}") for name in names},
        read=partial(_read, parts, settings),
        tokenizer_files=_tokenizer_files(directory, tokenizer),
    )


def _part_files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("consolidated.*.pth"))
    if not files:
        raise ValueError(f"{directory}: params.json, but no consolidated.*.pth; copy or download the weights as well")
    for number, file in enumerate(files):
        if file.name != f"consolidated.{number:02}.pth":
            raise ValueError(f"{directory / f'consolidated.{number:02}.pth'}: missing, though {file.name} is there")
    return files


def _open_part(file: Path) -> Mapping[str, Tensor]:
    """Tensors that lie in the file until they are read; nothing but tensors is unpickled."""
    try:
        part = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # its own message tells how to run the code inside
        raise ValueError(
            f"{file}: holds more than tensors, which is never unpickled; get it from another source"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        problem = str(error).strip().splitlines()[0][:150]
        raise ValueError(f"{file}: truncated, or not written by torch.save ({problem}); download it again") from None
    if not isinstance(part, dict) or not all(isinstance(value, Tensor) for value in part.values()):
        raise ValueError(f"{file}: expected a table of tensors, found {type(part).__name__}")
    if any(tensor.layout != torch.strided or tensor.device.type != "cpu" for tensor in part.values()):
        raise ValueError(f"{file}: holds tensors without plain storage; save it again as dense CPU tensors")
    for name in (EMBEDDING, FIRST_WQ, FIRST_W1):
        if name not in part or part[name].ndim != 2 or part[name].numel() == 0:
            raise ValueError(f"{file}: no matrix {name}: not a Llama checkpoint of Meta's, or not the whole of one")
    return {name: tensor for name, tensor in part.items() if name != "rope.freqs"}  # the angles follow from params.json


def _working_type(files: Sequence[Path], parts: Parts) -> torch.dtype:
    """The type of every tensor; float32, which holds them all, where they differ."""
    types = set()
    for file, part in zip(files, parts):
        for name, tensor in part.items():
            if tensor.dtype not in TYPE_NAMES:
                known = ", ".join(TYPE_NAMES.values())
                raise ValueError(f"{file}: tensor {name} is stored as {tensor.dtype}; supported: {known}")
            types.add(tensor.dtype)
    return types.pop() if len(types) == 1 else torch.float32


def _settings(path: Path, parts: Parts, max_seq_len: int) -> ModelSettings:
    if not path.is_file():
        raise ValueError(f"{path}: missing; it lies beside the weights in Meta's releases")
    params = read_object(path)
    unknown = sorted(set(params) - KNOWN)
    if unknown:
        raise ValueError(f"{path}: {unknown[0]!r} is not a parameter of a Llama 1, 2 or 3 language model")
    for key in PLAIN:
        if key not in params:
            raise ValueError(f"{path}: {key!r} is missing")
        if not isinstance(params[key], int | float) or params[key] <= 0:
            raise ValueError(f"{path}: {key!r} is {params[key]!r}, expected a number above 0")
    dim, n_heads = params["dim"], params["n_heads"]
    scaling = LLAMA32 if (dim, params["n_layers"]) in LLAMA32_SHAPES else LLAMA31
    _refuse_missing_parts(path, parts, dim)
    try:
        return ModelSettings(
            vocab_size=_vocab_size(path, parts, params),
            dim=dim,
            n_layers=params["n_layers"],
            n_heads=n_heads,
            n_kv_heads=params.get("n_kv_heads") or n_heads,
            ffn_dim=parts[0][FIRST_W1].shape[0] * len(parts),
            max_seq_len=params.get("max_seq_len") or max_seq_len,
            norm_eps=params["norm_eps"],
            rope_theta=params.get("rope_theta", 10_000.0),
            rope_scaling=scaling if params.get("use_scaled_rope") else None,
            tie_embeddings=_tied(parts),
        )
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, m['loc']))} {m['msg']}" for m in error.errors())
        raise ValueError(f"{path}: {mistakes}") from None


def _refuse_missing_parts(path: Path, parts: Parts, dim: int) -> None:
    """The last parts' absence leaves no gap in the numbers, but too few rows of wq, which has `dim` in all."""
    rows = parts[0][FIRST_WQ].shape[0]
    if rows * len(parts) != dim and dim % rows == 0 and dim > rows:
        raise ValueError(
            f"{path.parent}: {len(parts)} of {dim // rows} parts (dim is {dim}, layers.0.attention.wq.weight has {rows} "
            "rows in each); copy or download the others as well"
        )


def _vocab_size(path: Path, parts: Parts, params: dict[str, Any]) -> int:
    """-1 in Llama 2's own files: the tokenizer's; here, the embedding's."""
    embedding = parts[0][EMBEDDING]
    by_width = embedding.shape[1] * len(parts) == params["dim"]
    found = embedding.shape[0] if by_width else embedding.shape[0] * len(parts)
    told = params.get("vocab_size", -1)
    if told not in (-1, found):
        raise ValueError(f"{path}: vocab_size is {told}, but {EMBEDDING} has {found} rows")
    return found


def _tied(parts: Parts) -> bool:
    """Meta's layout always stores both; equal to the bit, they are one (Llama 3.2's small models)."""
    outputs = [part.get("output.weight") for part in parts]
    if any(output is None for output in outputs):
        return True
    shapes_agree = all(
        output.shape == part[EMBEDDING].shape for output, part in zip(outputs, parts) if output is not None
    )
    if len(parts) == 1:
        return shapes_agree and torch.equal(parts[0]["output.weight"], parts[0][EMBEDDING])
    whole = _joined([part[EMBEDDING] for part in parts], 0 if shapes_agree else 1)
    return torch.equal(whole, _joined([part["output.weight"] for part in parts], 0))


def _axis(name: str, parts: Parts, settings: ModelSettings) -> int | None:
    """The axis along which the parts of a tensor are joined; None: every part holds the whole."""
    if name == EMBEDDING:
        return 1 if parts[0][name].shape[1] * len(parts) == settings.dim else 0
    if name.endswith(BY_ROWS):
        return 0
    return 1 if name.endswith(BY_COLUMNS) else None


def _shape(files: Sequence[Path], parts: Parts, name: str, settings: ModelSettings) -> tuple[int, ...]:
    for file, part in zip(files, parts):
        if name not in part:
            raise ValueError(f"{file}: tensor {name} is missing, though part 00 has it")
        if part[name].shape != parts[0][name].shape:
            raise ValueError(
                f"{file}: tensor {name}: part 00 has shape {tuple(parts[0][name].shape)}, found {tuple(part[name].shape)}"
            )
    axis = _axis(name, parts, settings) if len(parts) > 1 else None
    return tuple(n * len(parts) if at == axis else n for at, n in enumerate(parts[0][name].shape))


def _read(parts: Parts, settings: ModelSettings, name: str) -> Tensor:
    axis = _axis(name, parts, settings)
    weight = parts[0][name] if axis is None else _joined([part[name] for part in parts], axis)
    return halved(weight, settings.d_head) if name.endswith(ROTATED) else weight


def _joined(pieces: Sequence[Tensor], axis: int) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), axis)


def _tokenizer_files(directory: Path, given: Path | None) -> dict[str, bytes]:
    place = given or next((d for d in (directory, directory.parent) if (d / "tokenizer.model").is_file()), directory)
    if place.is_dir():
        found = {name: (place / name).read_bytes() for name in TOKENIZER_FILES if (place / name).is_file()}
    elif place.is_file() and place.suffix in (".model", ".json"):
        found = {f"tokenizer{place.suffix}": place.read_bytes()}
    else:
        raise ValueError(f"{place}: expected tokenizer.model or tokenizer.json, or a directory with one")
    model = found.get("tokenizer.model")
    if model is not None and _is_tiktoken(model) and "tokenizer.json" in found:
        return {name: data for name, data in found.items() if name != "tokenizer.model"}  # the same tokenizer twice
    if model is None or "tokenizer.json" in found:
        return found
    if _is_tiktoken(model):
        raise ValueError(
            f"{place}: this tokenizer.model is Llama 3's list of byte strings, not a SentencePiece model; give the "
            "same tokenizer's tokenizer.json with --tokenizer DIRECTORY"
        )
    return found | hugging_face_files(model)


def _is_tiktoken(model: bytes) -> bool:
    """Lines of base64, a space and a number."""
    first = model.split(b"\n", 1)[0].split(b" ")
    return len(first) == 2 and first[1].strip().isdigit()


def write_meta(checkpoint: Checkpoint, out_dir: Path, tokenizer: Tokenizer | None, parts: int = 1) -> None:
    """Writes the layout that Meta's reference code runs on `parts` ranks, in the checkpoint's own dtype.

    Holds one part at a time. ValueError for what the layout cannot say.
    """
    settings, where = checkpoint.settings, checkpoint.where
    if checkpoint.scalar:
        raise ValueError(f"{where}: a reward model has no place in Meta's layout; export it with --to hf")
    if settings.d_head * settings.n_heads != settings.dim:
        raise ValueError(
            f"{where}: heads of {settings.d_head} x {settings.n_heads} in a width of {settings.dim}; Meta's code divides the width by the heads"
        )
    scaling = settings.rope_scaling
    if scaling not in (None, LLAMA31):
        raise ValueError(
            f"{where}: Meta's code has no {scaling.kind if scaling else ''} RoPE scaling but Llama 3.1's own"
        )
    for number, what in ((settings.n_kv_heads, "key/value heads"), (settings.ffn_dim, "feed-forward rows"),
                         (settings.vocab_size, "pieces"), (settings.dim, "columns")):  # fmt: skip
        if number % parts:
            raise ValueError(f"{where}: {number} {what} do not divide into {parts} parts")
    if tokenizer is not None and "tokenizer.model" not in tokenizer.files:
        raise ValueError(
            f"{where}: no tokenizer.model (SentencePiece), which Meta's code reads; export with --to hf or gguf"
        )
    check(checkpoint)
    out_dir.mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        with (out_dir / f"consolidated.{part:02}.pth").open(
            "wb"
        ) as file:  # a file of Python's own says when the disk is full
            torch.save(_part(checkpoint, part, parts), file)
    write_object(out_dir / "params.json", _params(settings))
    if tokenizer is not None:
        tokenizer.save(out_dir)


def _part(checkpoint: Checkpoint, part: int, parts: int) -> dict[str, Tensor]:
    settings = checkpoint.settings
    names = list(wanted_shapes(settings, scalar=False))
    tensors: dict[str, Tensor] = {}
    for name in names:
        weight = checkpoint.read(name)
        if name.endswith(ROTATED):
            weight = interleaved(weight, settings.d_head)
        axis = 1 if name == EMBEDDING or name.endswith(BY_COLUMNS) else 0 if name.endswith(BY_ROWS) else None
        tensors[name] = weight if axis is None or parts == 1 else weight.chunk(parts, axis)[part].clone()
        if name == EMBEDDING and settings.tie_embeddings:  # one storage, which torch.save writes once, if it is not cut
            tensors["output.weight"] = weight if parts == 1 else weight.chunk(parts, 0)[part].clone()
    return tensors


def _params(settings: ModelSettings) -> dict[str, Any]:
    """params.json. Meta's code computes the feed-forward width from two numbers: ffn_dim(dim, multiplier, multiple_of)."""
    params: dict[str, Any] = {
        "dim": settings.dim,
        "n_layers": settings.n_layers,
        "n_heads": settings.n_heads,
        "n_kv_heads": settings.n_kv_heads,
        "vocab_size": settings.vocab_size,
        "norm_eps": settings.norm_eps,
        "rope_theta": settings.rope_theta,
    }
    if settings.rope_scaling is not None:
        params["use_scaled_rope"] = True
    plain = int(2 * 4 * settings.dim / 3)
    for multiplier, multiple_of in (
        (1.0, 256),
        (1.0, 1),
        (settings.ffn_dim / plain, 1),
        ((settings.ffn_dim + 0.5) / plain, 1),
    ):
        if ffn_dim(settings.dim, multiplier, multiple_of) == settings.ffn_dim:
            more = {} if multiplier == 1.0 else {"ffn_dim_multiplier": multiplier}
            return params | {"multiple_of": multiple_of} | more
    raise AssertionError(f"no multiplier gives {settings.ffn_dim} from {settings.dim}")
