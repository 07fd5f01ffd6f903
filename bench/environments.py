"""Virtual environments for the peers: programs nobody here wrote, which our files and our server must satisfy.

Each peer has an environment of its own (their pins disagree with ours and with each other's), built once with pip into
`$AYNI_CACHE/peers/NAME-HASH` (default `~/.cache/ayni`). The hash covers the pins, so another pin is another folder; the
stamp is written last, so a build that was killed starts again.

    .venv/bin/python -m bench.environments llama-cpp lm-eval garak
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ayni.evals.packages import cache_folder

CONSTRAINTS = Path(__file__).parent / "constraints"
PIP = "pip==26.3"  # older ones need a quarter of an hour to resolve garak
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# llama.cpp's build options by the name that /proc/cpuinfo gives the instructions. Without AMX: on the one machine with it that
# was tried, llama.cpp built for it died of an illegal instruction (tileloadd) at its first token.
INSTRUCTIONS = {
    "avx512f": "GGML_AVX512",
    "avx512vbmi": "GGML_AVX512_VBMI",
    "avx512_vnni": "GGML_AVX512_VNNI",
    "avx512_bf16": "GGML_AVX512_BF16",
    "avx_vnni": "GGML_AVX_VNNI",
}
BASE_BUILD = "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"


def cpu_flags() -> set[str]:
    """What the processor says it can do; empty where there is no /proc."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":", 1)[1].split()}


def fast_build() -> str:
    """Every instruction this processor has and llama.cpp can use, each by name."""
    found = [f"-D{option}=ON" for flag, option in INSTRUCTIONS.items() if flag in cpu_flags()]
    return " ".join([BASE_BUILD, *found])


@dataclass(frozen=True)
class Peer:
    requirements: tuple[str, ...]  # what they need in turn is pinned in constraints/NAME.txt
    build: dict[str, str] = field(default_factory=dict)  # environment of a build from source


PEERS = {
    # A build for the machine's own instruction set crashes on some virtual machines: name the instructions instead.
    "llama-cpp": Peer(
        ("llama-cpp-python==0.3.36",),
        build={"CMAKE_ARGS": BASE_BUILD},
    ),
    # torch, transformers and accelerate: for lm-eval's own `hf` model, the reference for the numbers over HTTP.
    "lm-eval": Peer(("lm-eval[api]==0.4.13", "accelerate", "torch", "transformers")),
    "garak": Peer(("garak==0.17.1",)),
    # What the bench measures against.
    "transformers": Peer(("torch", "transformers")),
    "llama-cpp-fast": Peer(("llama-cpp-python==0.3.36",), build={"CMAKE_ARGS": fast_build()}),
    "trl": Peer(("trl==1.16.0", "torch")),
    "trl-ppo": Peer(("trl==1.12.0", "torch")),
    "datasets": Peer(("datasets", "tokenizers")),
    # Whose losses ours are compared with (bench/oracles/).
    "verl": Peer(("verl==0.9.1", "torch")),
}


def python(name: str) -> Path:
    """The interpreter of the peer's environment, built first if it is not there."""
    peer, pins = PEERS[name], CONSTRAINTS / f"{name}.txt"
    identity = repr((peer.requirements, pins.read_text(), sorted(peer.build.items()), sys.version_info[:2]))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = cache_folder() / "peers" / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not (folder / ".ready").exists():
            _build(peer, pins, folder)
    return folder / "bin" / "python"


def run_peer(name: str, *arguments: str | Path, timeout: float, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs the peer's Python to its end, without a hub: `extra` are further environment variables."""
    command = [str(python(name)), *map(str, arguments)]
    environment = {**os.environ, **OFFLINE, **extra}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def overlay(name: str) -> Path:
    """A folder of packages to put on PYTHONPATH beside ours, for an extra too heavy for everybody; built once."""
    pins = CONSTRAINTS / f"{name}.txt"
    digest = hashlib.sha256(f"{pins.read_text()}{sys.version_info[:2]}".encode()).hexdigest()[:12]
    folder = cache_folder() / "peers" / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not (folder / ".ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--target", str(folder), "--requirement", str(pins)], check=True)
            (folder / ".ready").touch()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build(peer: Peer, pins: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, PIP], check=True)
    # pip's cache does not tell wheels built with other flags apart.
    fresh = ["--no-cache-dir"] if peer.build else []
    environment = {**os.environ, **peer.build}
    subprocess.run([*pip, *fresh, "--constraint", str(pins), *peer.requirements], env=environment, check=True)
    (folder / ".ready").touch()


if __name__ == "__main__":
    for chosen in sys.argv[1:] or PEERS:
        print(chosen, python(chosen))
