"""datasets.map with a tokenizer of the tokenizers library, as its users pretokenise: load, map to ids, map into blocks, save.

Set-up: tokenizer (a directory), file (JSONL with `text`), block, bos, eos, scratch, and the candidate's processes (null:
no worker processes, the tokenizer's own threads) and batch. Nothing is taken from a cache: every run has a new folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from worker import serve

Columns = dict[str, list[Any]]


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    if setup["processes"]:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as the library asks for under worker processes
    import numpy as np
    from datasets import load_dataset, load_from_disk
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(setup["tokenizer"]) / "tokenizer.json"))
    bos, eos, block = setup["bos"], setup["eos"], setup["block"]

    def tokenize(rows: Columns) -> Columns:
        found = tokenizer.encode_batch_fast(rows["text"], add_special_tokens=False)
        return {"input_ids": [[bos, *encoding.ids, eos] for encoding in found]}

    def group(rows: Columns) -> Columns:
        ids = list(chain.from_iterable(rows["input_ids"]))
        return {"input_ids": [ids[i : i + block] for i in range(0, len(ids), block)]}

    def pretokenise(folder: Path) -> None:
        texts = load_dataset("json", data_files=setup["file"], split="train", cache_dir=str(folder / "cache"))
        common = {"batched": True, "batch_size": setup["batch"], "num_proc": setup["processes"]}
        ids = texts.map(tokenize, remove_columns=["text"], **common)
        ids.map(group, **common).save_to_disk(folder / "blocks")

    def run(request: dict[str, Any]) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(dir=setup["scratch"], prefix=".packing-"))
        try:
            began = time.perf_counter()
            pretokenise(folder)
            seconds = time.perf_counter() - began
            flat = load_from_disk(folder / "blocks").data.column("input_ids").combine_chunks().flatten().to_numpy()
        finally:
            shutil.rmtree(folder)
        ids = flat[: len(flat) // block * block]
        digest = hashlib.sha256(ids.astype(np.dtype("<i8")).tobytes()).hexdigest()
        return {
            "seconds": seconds,
            "work": os.path.getsize(setup["file"]) / 1e6,
            "tokens": len(ids),
            "sha256": digest,
        }

    return run


if __name__ == "__main__":
    serve(load)
