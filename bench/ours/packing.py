"""Our shards stage on a file of texts: read, tokenise, write the token file, as `ayni pretrain` does.

Set-up: tokenizer (a directory), file (JSONL with `text`), block, scratch (a folder for what is written). A run builds the
artifact anew, its manifest with the hashes of what went in and came out included.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ayni.config import ShardSettings
from ayni.stages import shards
from ayni.train.batches import read_shard
from bench.worker import serve


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    tokenizer, file = Path(setup["tokenizer"]), Path(setup["file"])

    def run(request: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=setup["scratch"], prefix=".packing-") as folder:
            out = Path(folder) / "shards"
            began = time.perf_counter()
            shards.run(ShardSettings(upsample={}), tokenizer, file, None, out, seed=0)
            seconds = time.perf_counter() - began
            ids = read_shard(out / "train" / f"{file.stem}.npy")
            blocks = ids[: len(ids) // setup["block"] * setup["block"]]
            digest = hashlib.sha256(blocks.astype("<i8").tobytes()).hexdigest()
            return {"seconds": seconds, "work": file.stat().st_size / 1e6, "tokens": len(blocks), "sha256": digest}

    return run


if __name__ == "__main__":
    serve(load)
