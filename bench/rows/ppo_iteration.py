"""Rows: an iteration of PPO (paper 3.2.3), memory included."""

from __future__ import annotations

import os
from typing import Any

from ayni.artifacts import write_json
from ayni.config import OptimizerSettings
from ayni.text.dialogue import encode_prompt
from bench import model
from bench.rows.reward_epoch import read_hh
from bench.workload import Against, Side, Workload

PROMPTS, NEW_TOKENS, MINIBATCH = 64, 64, 16
TINY_PROMPTS, TINY_NEW_TOKENS, TINY_MINIBATCH = 8, 8, 4
MAX_PROMPT = 96  # tokens, ChatML's default system message included
SAME_PROMPTS = 0.1  # how far prompt tokens may differ: RLOO answers half the prompts twice


def inputs() -> dict[str, Any]:
    tiny = bool(os.environ.get("BENCH_TINY"))
    batch = TINY_PROMPTS if tiny else PROMPTS
    path = model.folder() / f"hh-{batch}-prompts.json"
    write_json(path, read_questions(batch))
    return {
        "model": str(model.smollm2()),
        "scorer": str(model.reward_model()),
        "prompts": str(path),
        "batch": batch,
        "minibatch": TINY_MINIBATCH if tiny else MINIBATCH,
        "new_tokens": TINY_NEW_TOKENS if tiny else NEW_TOKENS,
        "temperature": 1.0,
        "beta": 0.01,
        "optimizer": OptimizerSettings(lr=1e-6, schedule="constant").model_dump(),
    }


def read_questions(count: int) -> list[dict[str, Any]]:
    """The first questions of distinct HH dialogues, as messages and as token ids; neighbours are of like length."""
    questions = dict.fromkeys(row["prompt"][0]["content"] for row in read_hh() if row["prompt"][0]["role"] == "user")
    prompts = [{"messages": [{"role": "user", "content": question}]} for question in questions]
    encoded = [{**prompt, "ids": encode_prompt(model.tokenizer(), prompt["messages"])} for prompt in prompts]
    return sorted([row for row in encoded if len(row["ids"]) <= MAX_PROMPT][:count], key=lambda row: len(row["ids"]))


def same_work(facts: dict[str, dict[str, Any]]) -> None:
    ours = facts[AYNI.name]
    for name, answer in facts.items():
        for fact in ("work", "steps", "new_tokens"):
            if answer[fact] != ours[fact]:
                raise ValueError(f"ppo-iteration: {fact} is {answer[fact]} with {name}, {ours[fact]} with {AYNI.name}")
        if abs(answer["prompt_tokens"] / ours["prompt_tokens"] - 1) > SAME_PROMPTS:
            raise ValueError(
                f"ppo-iteration: {answer['prompt_tokens']} prompt tokens with {name}, {ours['prompt_tokens']} with {AYNI.name}"
            )


AYNI = Side(
    "ayni",
    "ours/ppo_iteration.py",
    setup={"row_len": 256},
    settings="bf16 weights (policy and critic over fp32 masters), compiled sampling, eager training: policy, critic, reference, one reward model; no stop token",
)
PPO = Side(
    "trl-1.12-ppo",
    "peers/trl_ppo.py",
    environment="trl-ppo",
    setup={"dtype": "autocast", "rollout_rows": PROMPTS},
    settings="PPOTrainer, bf16 autocast over fp32 weights (set for it as accelerate launch does), reference and reward model "
    "in bf16, gradient_checkpointing=False, stop_token=None, one device batch, 4 minibatches",
)
RLOO = Side(
    "trl-1.16-rloo",
    "peers/trl_rloo.py",
    environment="trl",
    setup={"dtype": "autocast", "generations": 2},
    settings="RLOOTrainer, no critic, so less work than ours: 32 prompts x 2 answers, min_new_tokens 64, bf16=True, reference and "
    "reward model in bf16, gradient_checkpointing=False, 4 steps a generation",
)

WORKLOADS = [
    Workload(
        "ppo-iteration",
        "answers/s",
        ours=AYNI,
        peers=(Against(PPO, goal=3.0, memory_goal=0.6), Against(RLOO, goal=3.0, memory_goal=0.6)),
        inputs=inputs,
        check=same_work,
        say=f"One iteration from fresh weights: {PROMPTS} answers of exactly {NEW_TOKENS} tokens, scored by one reward model, "
        f"then an optimizer step on each minibatch of {MINIBATCH}; loading is not timed",
    )
]
