"""One stream: a single prompt, 128 greedy tokens."""

from __future__ import annotations

import os
from typing import Any

from bench import model
from bench.rows.rollout import prompts
from bench.workload import Against, Facts, Side, Workload

NEW_TOKENS = 128


def inputs() -> Facts:
    new_tokens = 8 if os.environ.get("BENCH_TINY") else NEW_TOKENS
    (prompt,) = prompts(1)
    return {
        "model": str(model.smollm2()),
        "gguf": str(model.gguf()),
        "prompt": prompt,
        "prompts": [prompt],
        "limits": [[new_tokens]],
        "new_tokens": new_tokens,
    }


def same_work(facts: dict[str, Any]) -> None:
    """As many tokens, and the same first one: the rest may part ways, for the weights are not rounded alike."""
    tokens = {name: (found["work"], found["ids"][0]) for name, found in facts.items()}
    if len(set(tokens.values())) != 1:
        raise ValueError(f"not the same number of tokens, or not the same first token: {tokens}")


TRANSFORMERS = Side(
    "transformers",
    "peers/transformers_generate.py",
    environment="transformers",
    setup={"greedy": True, "batch": 1, "order": "prompt"},
    candidates=(
        {"dtype": "bfloat16", "static": False},
        {"dtype": "float32", "static": False},
        {"dtype": "bfloat16", "static": True},
    ),
    settings="generate, sdpa; static: static cache and compiled decoding",
)
LLAMA_CPP = Side(
    "llama.cpp",
    "peers/llama_cpp_generate.py",
    environment="llama-cpp-fast",
    setup={"greedy": True, "sequences": 1, "unified": True},
    candidates=({"flash": True}, {"flash": False}),
    settings="Q8_0",
)
WORKLOADS = [
    Workload(
        name="stream",
        unit="tokens/s",
        say=f"one prompt, {NEW_TOKENS} greedy tokens, prompt included in the time",
        inputs=inputs,
        check=same_work,
        bound="read_bytes",
        runs=5,
        ours=Side(
            "ayni",
            "ours/stream.py",
            setup={"int8": True},
            candidates=({"compiled": False},),
            beside=({"compiled": True, "int8": False},),
            settings="prompt in bf16, decoding with int8 weights, a step in one call",
        ),
        peers=(Against(TRANSFORMERS, goal=2.5), Against(LLAMA_CPP, goal=0.9)),
    )
]
