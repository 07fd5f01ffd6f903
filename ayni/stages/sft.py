"""Stage: supervised fine-tuning (paper 3.1). Samples packed to fill the row, loss on answer tokens only, 2 epochs.

loss = -1/|A| sum_{t in A} log p(x_t | x_{<t})       A: the assistant's tokens, the end token included
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build
from ayni.config import SFTSettings
from ayni.model.checkpoint import check_vocabulary, load_model
from ayni.text.dialogue import encode_chat
from ayni.text.sources import read_chats
from ayni.text.tokenizer import load_tokenizer
from ayni.train.fitting import fine_tune
from ayni.train.mesh import open_mesh


def run(settings: SFTSettings, model: Path, chats: Path, out: Path, *, seed: int, device: str = "cpu") -> Artifact:
    """Fine-tunes `model` on dialogues (JSONL rows with `messages`); writes a `LlamaForCausalLM` directory."""
    mesh = open_mesh(device)

    def work_in(work: Path) -> None:
        tokenizer, policy = load_tokenizer(model), load_model(model)
        check_vocabulary(policy.settings, tokenizer, str(model))
        rows = with_safety_share(read_chats(chats), settings.safety_share, seed, str(chats))
        encoded = [encode_chat(tokenizer, row["messages"]) for row in rows]
        samples = [(ids, mask) for ids, mask in encoded if len(ids) <= settings.row_len]
        longer = len(encoded) - len(samples)
        if not samples:
            raise ValueError(
                f"{chats}: every chat is longer than row_len {settings.row_len} tokens; raise it (--set row_len=...)"
            )
        left_out = f"; {longer} longer than row_len {settings.row_len} left out" if longer else ""
        telemetry.say(f"  {len(samples)} dialogues{left_out}")
        fine_tune(work, "SFT", policy, tokenizer, samples, settings, epochs=settings.epochs, mesh=mesh, seed=seed)

    return build(out, "sft", settings.model_dump(), {"model": model, "chats": chats}, seed, work_in)


def with_safety_share(rows: list[dict[str, Any]], share: float, seed: int, name: str) -> list[dict[str, Any]]:
    """The rows with this share of the safety demonstrations (paper 4.2.3), in their order; every other row stays.

    Those kept are the first of an order that the seed decides, so a smaller share is part of a larger one.
    ValueError if less than all is asked for and no row is tagged `prompt_kind: safety`.
    """
    if share == 1:
        return rows
    safety = [i for i, row in enumerate(rows) if row.get("prompt_kind") == "safety"]
    if not safety:
        raise ValueError(
            f'{name}: safety_share {share:g}, but no chat is tagged "prompt_kind": "safety"; tag them, or leave the setting out'
        )
    kept = round(share * len(safety))
    random.Random(f"safety share {seed}").shuffle(safety)
    dropped = set(safety[kept:])
    telemetry.say(f"  {kept} of {len(safety)} safety demonstrations")
    return [row for i, row in enumerate(rows) if i not in dropped]
