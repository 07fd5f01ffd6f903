"""transformers' `generate`. Set-up: model (a directory), prompts (lists of ids), limits (per prompt, of each sample), and

batch (samples generated together), order (`prompt`: sorted by prompt length; `answer`: by answer length, which nobody knows
beforehand), dtype, greedy, static (static cache and compiled decoding).
A batch runs until the longest answer in it is done: tokens beyond a sample's own limit are not counted as work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation import CompileConfig

from bench.worker import serve

PAD = 0  # an id is as good as another: the attention mask hides it
WARM_UP_TOKENS = 8

Sample = tuple[list[int], int]  # prompt, limit


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    dtype = getattr(torch, setup["dtype"])
    model = AutoModelForCausalLM.from_pretrained(setup["model"], dtype=dtype, attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None  # every answer is as long as its limit
    settings = decoding(setup)
    samples = ordered(setup)
    batches = [samples[first : first + setup["batch"]] for first in range(0, len(samples), setup["batch"])]

    @torch.inference_mode()
    def run(request: dict[str, Any]) -> dict[str, Any]:
        whole = not request["warmup"] or setup["static"]  # compiled decoding must see its shapes
        todo = batches if whole else [[(prompt, WARM_UP_TOKENS) for prompt, _ in batches[0]]]
        if request.get("trial"):
            todo = todo[len(todo) // 2 :]  # the half with the longer prompts, or all of a single batch
        torch.manual_seed(request["nth"])
        answers = [generate(model, batch, settings) for batch in todo]
        return {
            "work": sum(limit for batch in todo for _, limit in batch),
            "ids": answers[0][0][: todo[0][0][1]].tolist(),
        }

    return run


def decoding(setup: dict[str, Any]) -> dict[str, Any]:
    sampling = (
        {"do_sample": False} if setup["greedy"] else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    )
    if not setup["static"]:
        return sampling
    compiled = CompileConfig(fullgraph=False, mode="default")
    compiled._compile_all_devices = True  # else only accelerators are compiled for
    return {**sampling, "cache_implementation": "static", "compile_config": compiled}


def ordered(setup: dict[str, Any]) -> list[Sample]:
    pairs = zip(setup["prompts"], setup["limits"], strict=True)
    samples = [(prompt, limit) for prompt, limits in pairs for limit in limits]
    by_prompt = setup["order"] == "prompt"
    return sorted(samples, key=lambda sample: len(sample[0]) if by_prompt else sample[1])


def generate(model: Any, batch: list[Sample], settings: dict[str, Any]) -> torch.Tensor:
    """New ids [B, longest limit]; prompts padded on the left."""
    width = max(len(prompt) for prompt, _ in batch)
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt, _ in batch])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in batch])
    longest = max(limit for _, limit in batch)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=longest, pad_token_id=PAD, **settings)
    if found.shape[1] != width + longest:
        raise RuntimeError(f"{found.shape[1] - width} tokens generated, and {longest} asked for")
    return found[:, width:]


if __name__ == "__main__":
    serve(load)
