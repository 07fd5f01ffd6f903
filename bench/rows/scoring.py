"""Scoring 128 texts of 32 to 512 tokens: log-probabilities of the answers, and scalar rewards."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from statistics import mean
from typing import Any

from bench import model
from bench.workload import Against, Facts, Side, Workload

SEQUENCES, SHORTEST, LONGEST = 64, 32, 512
PROMPT_SHARE = 0.25
PAD = 0  # what transformers takes for padding; no sequence may hold it
# bf16 rounds log-probabilities of single texts by up to 0.37 (0.047 in the mean); scores spread over a few units.
TOLERANCE = 0.1  # of the mean difference


def inputs(kind: str) -> Callable[[], Facts]:
    def make() -> Facts:
        count = 8 if os.environ.get("BENCH_TINY") else SEQUENCES
        lengths = [SHORTEST + round((LONGEST - SHORTEST) * nth / (count - 1)) for nth in range(count)]
        random.Random(0).shuffle(lengths)
        ids = iter(id for id in model.text_tokens(sum(lengths) + 1000) if id != PAD)
        sequences = [[next(ids) for _ in range(length)] for length in lengths]
        cuts = [round(PROMPT_SHARE * length) for length in lengths]
        return {
            "model": str(model.reward_model() if kind == "rewards" else model.smollm2()),
            "kind": kind,
            "prompts": [sequence[:cut] for sequence, cut in zip(sequences, cuts)],
            "answers": [sequence[cut:] for sequence, cut in zip(sequences, cuts)],
        }

    return make


def same_scores(facts: dict[str, Any]) -> None:
    """The two sides' scores of each text, in the mean of |difference| (both in bf16)."""
    ours, (theirs,) = facts["ayni"], [found for name, found in facts.items() if name != "ayni"]
    apart = mean(abs(mine - yours) for mine, yours in zip(ours["scores"], theirs["scores"], strict=True))
    if apart > TOLERANCE or ours["work"] != theirs["work"]:
        raise ValueError(f"scores differ by {apart:.3g} in the mean; tokens {ours['work']} and {theirs['work']}")


def scoring(kind: str, what: str) -> Workload:
    peer = Side(
        "transformers",
        "peers/transformers_score.py",
        environment="transformers",
        candidates=({"batch": 4}, {"batch": 8}, {"batch": 16}),
        settings="bf16, sdpa, right-padded batches sorted by length, no cache",
    )
    return Workload(
        name=f"scoring-{kind}",
        unit="tokens/s",
        say=f"{what} of {SEQUENCES} texts of {SHORTEST} to {LONGEST} tokens, prompts included in the count",
        inputs=inputs(kind),
        check=same_scores,
        bound="bf16_flops",
        ours=Side("ayni", "ours/score.py", settings="bf16, packed rows, layers compiled in halves"),
        peers=(Against(peer, goal=1.5),),
    )


WORKLOADS = [
    scoring("log-probs", "log-probabilities of the answers"),
    scoring("rewards", "scalar rewards"),
]
