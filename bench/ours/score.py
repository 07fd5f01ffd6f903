"""Our scoring of given text. Set-up: model (a directory), kind (`log-probs` or `rewards`), prompts, answers (lists of ids)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ayni.engine.score import log_probs_of, scores_of
from ayni.model.checkpoint import load_model, load_scalar
from ayni.train.allocator import keep_freed_memory
from ayni.train.compiling import compile_layers
from bench.costs import forward_flops
from bench.worker import serve

Scorer = Callable[[], list[float]]


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    keep_freed_memory()  # as the stages do
    prompts, answers = setup["prompts"], setup["answers"]
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    lengths = [len(sequence) for sequence in sequences]
    if setup["kind"] == "rewards":
        head = load_scalar(Path(setup["model"]), torch.bfloat16).eval()
        compile_layers(head, fixed_shapes=False)
        settings, score = head.settings, lambda: scores_of(head, sequences).tolist()
    else:
        model = load_model(Path(setup["model"]), torch.bfloat16).eval()
        compile_layers(model, fixed_shapes=False)
        settings, score = (
            model.settings,
            lambda: [found.mean().item() for found in log_probs_of(model, prompts, answers)],
        )

    def run(_: dict[str, Any]) -> dict[str, Any]:
        scores = score()
        return {"work": sum(lengths), "cost": cost(settings, lengths, answers, setup["kind"]), "scores": scores}

    return run


def cost(settings: Any, lengths: list[int], answers: list[list[int]], kind: str) -> float:
    """FLOPs: the body over every token, the output matrix over the tokens that are scored."""
    body = forward_flops(settings, lengths, head=False)
    scored = sum(map(len, answers)) if kind == "log-probs" else 0
    return body + 2.0 * settings.vocab_size * settings.dim * scored


if __name__ == "__main__":
    serve(load)
