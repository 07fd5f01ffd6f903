"""Row: an epoch of a reward model on real preferences (paper 3.2.2)."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from ayni.artifacts import write_json
from ayni.config import OptimizerSettings
from ayni.stages.reward import encode_pairs
from ayni.text.sources import Row, read_preferences
from bench import model
from bench.workload import Against, Side, Workload

HH = Path(__file__).parents[3] / "shared" / "data" / "hh_harmless_train.jsonl.gz"
PAIRS, BATCH, MAX_TOKENS = 100, 8, 256
TINY_PAIRS, TINY_MAX_TOKENS = 20, 48
# Mean loss of the epoch, bf16 on both sides. In fp32 both agree to 6 digits (0.856599 after two steps); the peer's own three
# precisions differ among each other by 0.016 after two steps.
LOSS_TOLERANCE = 0.05


def inputs() -> dict[str, Any]:
    """The pairs as token ids, shuffled once, so that both sides see the same batches."""
    count, max_tokens = (TINY_PAIRS, TINY_MAX_TOKENS) if os.environ.get("BENCH_TINY") else (PAIRS, MAX_TOKENS)
    pairs, _ = encode_pairs(model.tokenizer(), read_hh()[: 2 * count], max_tokens)
    pairs = pairs[:count]
    random.Random(0).shuffle(pairs)
    path = model.folder() / f"hh-{count}-pairs-of-{max_tokens}.json"
    write_json(path, [{"chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs])
    return {
        "scorer": str(model.reward_model()),
        "pairs": str(path),
        "batch_pairs": BATCH,
        "max_tokens": max_tokens,
        "optimizer": OptimizerSettings(lr=1e-5, schedule="constant").model_dump(),
    }


def read_hh() -> list[Row]:
    """Preferences of Anthropic's HH-RLHF, harmless-base."""
    if not HH.is_file():
        raise ValueError(f"{HH}: not there; put HH-RLHF's harmless-base pairs (chosen, rejected as text) at this path")
    return read_preferences(HH)


def same_work(facts: dict[str, dict[str, Any]]) -> None:
    first, *others = facts.items()
    for name, answer in others:
        for fact in ("work", "steps", "tokens"):
            if answer[fact] != first[1][fact]:
                raise ValueError(
                    f"reward-epoch: {fact} is {answer[fact]} with {name}, {first[1][fact]} with {first[0]}"
                )
        if abs(answer["loss"] - first[1]["loss"]) > LOSS_TOLERANCE:
            raise ValueError(
                f"reward-epoch: mean loss {answer['loss']:.4f} with {name}, {first[1]['loss']:.4f} with {first[0]}"
            )


TRL = Side(
    "trl-1.16",
    "peers/trl_reward.py",
    environment="trl",
    setup={"dtype": "autocast"},
    settings="RewardTrainer, bf16=True (fp32 weights, bf16 autocast), gradient_checkpointing=False, fused AdamW, padded batches",
)
AYNI = Side(
    "ayni",
    "ours/reward_epoch.py",
    settings="layers compiled in halves, bf16 weights over fp32 masters, fused AdamW, packed without padding",
)

WORKLOADS = [
    Workload(
        "reward-epoch",
        "pairs/s",
        ours=AYNI,
        peers=(Against(TRL, goal=2.0),),
        inputs=inputs,
        check=same_work,
        say=f"One epoch of a reward model on {PAIRS} HH-RLHF pairs cut to {MAX_TOKENS} tokens, {BATCH} pairs a step, the same "
        "batches and optimizer settings; tokenising, loading and saving are not timed",
    )
]
