"""transformers scoring given text in batches padded on the right, sorted by length.

Set-up: model (a directory), kind (`log-probs` or `rewards`), prompts, answers (lists of ids), batch. Logits are computed from
the batch's first answer token on (`logits_to_keep`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from bench.worker import serve

PAD = 0  # held by no sequence: rows/scoring.py sees to it


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    rewards = setup["kind"] == "rewards"
    kind = AutoModelForSequenceClassification if rewards else AutoModelForCausalLM
    model = kind.from_pretrained(setup["model"], dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    model.config.pad_token_id = PAD
    model.config.use_cache = False
    pairs = list(zip(setup["prompts"], setup["answers"], strict=True))
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]) + len(pairs[index][1]))
    batches = [order[first : first + setup["batch"]] for first in range(0, len(order), setup["batch"])]
    score = reward if rewards else log_prob

    @torch.inference_mode()
    def run(request: dict[str, Any]) -> dict[str, Any]:
        todo = batches[::4] if request["warmup"] else batches
        scores: dict[int, float] = {}
        for indices in todo:
            scores.update(zip(indices, score(model, [pairs[index] for index in indices]), strict=True))
        work = sum(len(pairs[index][0]) + len(pairs[index][1]) for index in scores)
        return {"work": work, "scores": [scores[index] for index in sorted(scores)]}

    return run


def padded(sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and attention mask, [B, T]."""
    width = max(map(len, sequences))
    ids = torch.tensor([sequence + [PAD] * (width - len(sequence)) for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences])
    return ids, mask


def reward(model: Any, pairs: list[Any]) -> list[float]:
    ids, mask = padded([prompt + answer for prompt, answer in pairs])
    return model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()


def log_prob(model: Any, pairs: list[Any]) -> list[float]:
    """The mean log-probability of each answer's tokens."""
    ids, mask = padded([prompt + answer for prompt, answer in pairs])
    first = min(len(prompt) for prompt, _ in pairs)
    keep = ids.shape[1] - first + 1  # from the token before the first answer on
    logits_BTV = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits[:, :-1]
    means = []
    for row, (prompt, answer) in enumerate(pairs):
        start = len(prompt) - first
        logits_TV = logits_BTV[row, start : start + len(answer)].float()
        loss = torch.nn.functional.cross_entropy(logits_TV, torch.tensor(answer))
        means.append(-loss.item())
    return means


if __name__ == "__main__":
    serve(load)
