"""Artifacts: directories that stand whole or not at all.

A stage works in `.NAME.partial` beside its output and publishes by rename, so that a half-written artifact never
looks whole (TRAPS 17). A run that was killed finds its partial directory again and goes on in it, if the stage, its
settings, its seed and its inputs are still the same; otherwise the partial directory is dropped.

    runs/tiny/sft/            published: payload files, manifest.json, logs/
    runs/tiny/.pretrain.partial/   a stage at work: payload so far, state/ (training state), logs/

`manifest.json` vouches for the payload: the artifact's hash is a hash over the payload files' hashes, and covers
neither logs nor times, so that equal seeds give equal hashes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni import __version__

MANIFEST = "manifest.json"
FINGERPRINT = ".fingerprint"
LOGS = "logs"  # curves and times: not payload
STATE = "state"  # training state: dropped when the artifact is published
MIN_FREE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Artifact:
    path: Path
    manifest: dict[str, Any]
    fresh: bool = False  # built by this very call, not found as it stood

    @property
    def hash(self) -> str:
        return self.manifest["hash"]


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); was it cut short? Restore it or build it again") from None


def file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _payload(directory: Path) -> list[Path]:
    """The files an artifact's hash covers, in a fixed order."""
    skipped = {LOGS, STATE}
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file()
        and path.relative_to(directory).parts[0] not in skipped
        and path.name not in (MANIFEST, FINGERPRINT)
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def content_hash(path: Path) -> str:
    """The identity of an input: a published artifact's own hash, or the hash of a file's or folder's bytes."""
    if is_artifact(path):
        return read_manifest(path)["hash"]
    if path.is_file():
        return file_hash(path)
    if path.is_dir():
        return _digest(
            {str(file.relative_to(path)): file_hash(file) for file in sorted(path.rglob("*")) if file.is_file()}
        )
    raise ValueError(f"{path}: no such file or directory")


def is_artifact(path: Path) -> bool:
    """True for a directory that this module published; a user's folder may hold a manifest.json of its own."""
    if not (path / MANIFEST).is_file():
        return False
    manifest = read_json(path / MANIFEST)
    return isinstance(manifest, dict) and "fingerprint" in manifest


def refuse_foreign(out: Path, stage: str) -> None:
    """ValueError if publishing at `out` would replace anything but an artifact of the same stage, as it was written."""
    if out.is_file() or (out.is_dir() and not is_artifact(out) and any(out.iterdir())):
        raise ValueError(f"{out}: exists already and was not written by Ayni; move it away or name another output")
    if not is_artifact(out):
        return
    manifest = read_manifest(out)
    if manifest.get("stage") != stage:
        raise ValueError(f"{out}: exists already, made by the stage {manifest.get('stage')!r}; name another output")
    added = {str(path.relative_to(out)) for path in _payload(out)} - set(manifest.get("files", {}))
    if added:
        raise ValueError(
            f"{out / min(added)}: not written by Ayni, and would be lost; move it away or name another output"
        )


def read_manifest(directory: Path) -> dict[str, Any]:
    return read_json(directory / MANIFEST)


def fingerprint(stage: str, settings: Any, inputs: Mapping[str, Path | None], seed: int) -> str:
    """What decides a stage's result: same fingerprint, same payload."""
    named = {name: content_hash(path) for name, path in sorted(inputs.items()) if path is not None}
    return _digest({"stage": stage, "settings": settings, "inputs": named, "seed": seed, "version": __version__})


def published(out: Path, wanted: str) -> Artifact | None:
    """The artifact at `out` if it is whole and was built with this fingerprint."""
    if not is_artifact(out):
        return None
    manifest = read_manifest(out)
    whole = all(
        (out / name).is_file() and (out / name).stat().st_size == entry["bytes"]
        for name, entry in manifest["files"].items()
    )
    return Artifact(out, manifest) if whole and manifest["fingerprint"] == wanted else None


def is_main_process() -> bool:
    """True in the one process (rank 0) that writes artifacts; torchrun sets RANK."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def building(
    out: Path, stage: str, settings: Any, inputs: Mapping[str, Path | None], seed: int, wanted: str | None = None
) -> Iterator[Path]:
    """Gives a working directory, then publishes it as `out` by rename; on an exception `out` stays as it was.

    Raises ValueError when the disk is (nearly) full: nothing is published, earlier artifacts stay, and the stage goes
    on from its last saved state once there is room.
    """
    wanted = wanted or fingerprint(stage, settings, inputs, seed)
    work = out.with_name(f".{out.name}.partial")
    if not is_main_process():
        yield work
        return
    refuse_foreign(out, stage)
    out.parent.mkdir(parents=True, exist_ok=True)
    retired = _retired(out)
    if retired.exists() and not out.exists():  # killed between the two renames of a replacement
        retired.rename(out)
    free = shutil.disk_usage(out.parent).free
    if free < MIN_FREE_BYTES:
        raise ValueError(
            f"{out.parent}: only {free / 2**20:.0f} MiB of disk left; free some room, then run the same command again to go on"
        )
    if work.exists() and _read_fingerprint(work) != wanted:
        shutil.rmtree(work)
    (work / LOGS).mkdir(parents=True, exist_ok=True)
    write_atomically(work / FINGERPRINT, wanted)
    try:
        yield work
        _publish(work, out, stage, settings, inputs, seed, wanted)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ValueError(
                f"{work}: the disk is full; nothing was published. Free some room, then run the same command again to go on"
            ) from error
        raise


def build(
    out: Path,
    stage: str,
    settings: Any,
    inputs: Mapping[str, Path | None],
    seed: int,
    work_in: Callable[[Path], None],
) -> Artifact:
    """The artifact at `out`: taken as it stands if it was built from the same things, else built by `work_in(work)`."""
    wanted = fingerprint(stage, settings, inputs, seed)
    artifact = published(out, wanted)
    if artifact is None:
        with building(out, stage, settings, inputs, seed, wanted) as work:
            work_in(work)
        return Artifact(out, read_manifest(out) if is_main_process() else {}, fresh=True)
    return artifact


@contextmanager
def writing_aside(out: Path) -> Iterator[Path]:
    """A path beside `out`, for one file or directory that is not an artifact: it becomes `out` by rename once the block
    is through, and is removed if the block fails. ValueError if `out` exists: nothing is replaced."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out}: exists already; remove it or name another output")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.writing")
    _remove(work)  # of a run that was killed
    try:
        yield work
        for file in [work] if work.is_file() else sorted(work.rglob("*")):
            fsync(file)
        work.rename(out)
        fsync(out.parent)
    except BaseException:
        _remove(work)
        raise


def discard_partial(out: Path) -> None:
    """Removes what an unfinished build of `out` left, for a stage that has nothing to go on from."""
    _remove(out.with_name(f".{out.name}.partial"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_fingerprint(work: Path) -> str | None:
    path = work / FINGERPRINT
    return path.read_text() if path.is_file() else None


def _publish(
    work: Path, out: Path, stage: str, settings: Any, inputs: Mapping[str, Path | None], seed: int, wanted: str
) -> None:
    _drop_state(work)
    files = {
        str(path.relative_to(work)): {"sha256": file_hash(path), "bytes": path.stat().st_size}
        for path in _payload(work)
    }
    manifest = {
        "stage": stage,
        "version": __version__,
        "seed": seed,
        "settings": settings,
        "inputs": {
            name: {"path": os.path.relpath(path, out), "hash": content_hash(path)}
            for name, path in sorted(inputs.items())
            if path is not None
        },
        "files": files,
        "hash": _digest({name: entry["sha256"] for name, entry in files.items()}),
        "fingerprint": wanted,
    }
    write_json(work / MANIFEST, manifest)
    (work / FINGERPRINT).unlink()
    fsync(work)
    if out.exists():  # an artifact of other settings (or an empty folder): replaced as a whole
        retired = _retired(out)
        shutil.rmtree(retired, ignore_errors=True)
        out.rename(retired)
        work.rename(out)
        shutil.rmtree(retired)
    else:
        work.rename(out)
    fsync(out.parent)


def _drop_state(work: Path) -> None:
    """Training state goes by rename first: a kill on the way must not leave a checkpoint that is half there."""
    dropped = work / f"{STATE}.dropped"
    shutil.rmtree(dropped, ignore_errors=True)  # of a kill on the way
    if (work / STATE).exists():
        (work / STATE).rename(dropped)
        shutil.rmtree(dropped)


def _retired(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def fsync(path: Path) -> None:
    """Flushes a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
