"""The rollout of RLHF: 64 prompts x 4 samples at temperature 1, answers of 8 to 128 tokens; useful tokens per second."""

from __future__ import annotations

import os
import random
from typing import Any

from ayni.text.dialogue import encode_prompt
from bench import model
from bench.workload import Against, Facts, Side, Workload

PROMPTS, SAMPLES = 64, 4
SHORTEST, LONGEST = 8, 128  # tokens of an answer
PASSAGE = 400  # characters of the passage that a question comes with, at most


def prompts(count: int) -> list[list[int]]:
    """Dialogues that ask a question of BoolQ about the beginning of its passage, 0 to PASSAGE characters of it."""
    rows = model.questions()[:count]
    texts = [f"{row['passage'][: PASSAGE * nth // count]}\n{row['question']}?" for nth, row in enumerate(rows)]
    random.Random(0).shuffle(texts)
    return [encode_prompt(model.tokenizer(), [{"role": "user", "content": text.strip()}]) for text in texts]


def limits(count: int) -> list[list[int]]:
    """Answer lengths spread evenly from SHORTEST to LONGEST, dealt out at random but always alike."""
    total = count * SAMPLES
    spread = [SHORTEST + round((LONGEST - SHORTEST) * nth / (total - 1)) for nth in range(total)]
    random.Random(1).shuffle(spread)
    return [spread[first : first + SAMPLES] for first in range(0, total, SAMPLES)]


def inputs() -> Facts:
    count = 4 if os.environ.get("BENCH_TINY") else PROMPTS
    return {
        "model": str(model.smollm2()),
        "gguf": str(model.gguf()),
        "prompts": prompts(count),
        "limits": limits(count),
    }


def same_work(facts: dict[str, Any]) -> None:
    tokens = {name: found["work"] for name, found in facts.items()}
    if len(set(tokens.values())) != 1:
        raise ValueError(f"not the same number of useful tokens: {tokens}")


TRANSFORMERS = Side(
    "transformers",
    "peers/transformers_generate.py",
    environment="transformers",
    setup={"dtype": "bfloat16", "greedy": False, "static": False, "order": "prompt"},
    candidates=({"batch": 64}, {"batch": 128}),
    settings="generate, bf16, sdpa, left-padded batches sorted by prompt length, each to its longest answer",
)
LLAMA_CPP = Side(
    "llama.cpp",
    "peers/llama_cpp_generate.py",
    environment="llama-cpp-fast",
    setup={"greedy": False, "flash": True, "unified": False},
    candidates=({"sequences": 64}, {"sequences": 128}),
    settings="Q8_0, parallel sequences batched continuously, a prompt computed once for its samples, flash attention",
)
WORKLOADS = [
    Workload(
        name="rollout",
        unit="useful tokens/s",
        say=f"{PROMPTS} prompts x {SAMPLES} samples, temperature 1, answers of {SHORTEST} to {LONGEST} tokens, no end token",
        inputs=inputs,
        check=same_work,
        ours=Side(
            "ayni",
            "ours/rollout.py",
            settings="bf16 weights, compiled decoding, continuous batching, a request of its own for every sample",
        ),
        peers=(Against(TRANSFORMERS, goal=3.0), Against(LLAMA_CPP, goal=2.5)),
    )
]
