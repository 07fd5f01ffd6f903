"""One point of the growth curves: a model with random weights, trained for a step or sampled from, both eager.

Set-up: settings (ModelSettings), kind (`train` or `sample`). A run of `train`: rows, length. A run of `sample`: prompts (how
many), prompt_length, samples (of each prompt), new_tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ayni.config import ModelSettings, OptimizerSettings
from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.model import Transformer, init_weights
from ayni.model.precision import working_type
from ayni.train.loop import rows_loss, train_step
from ayni.train.mesh import Mesh
from ayni.train.optimizer import make_optimizer
from bench.costs import weight_bytes
from bench.worker import peak_memory, serve

Run = Callable[[dict[str, Any]], dict[str, Any]]


def load(setup: dict[str, Any]) -> Run:
    base = peak_memory()
    model = Transformer(ModelSettings(**setup["settings"]))
    init_weights(model, seed=0)
    run = trained(model.train()) if setup["kind"] == "train" else sampled(model.to(torch.bfloat16).eval())

    def with_base(request: dict[str, Any]) -> dict[str, Any]:
        return {**run(request), "base_memory": base, "parameters": sum(p.numel() for p in model.parameters())}

    return with_base


def trained(model: Transformer) -> Run:
    dtype = working_type("auto", sum(p.numel() for p in model.parameters()), torch.device("cpu"))
    optimizer = make_optimizer(model, OptimizerSettings(lr=1e-5), dtype)

    def run(request: dict[str, Any]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        shape = (request["rows"], request["length"] + 1)
        tokens = torch.randint(model.settings.vocab_size, shape, generator=generator)
        start = time.perf_counter()
        train_step(model, optimizer, [tokens], rows_loss, 1.0, Mesh())
        return {"seconds": time.perf_counter() - start, "work": request["rows"] * request["length"]}

    return run


def sampled(model: Transformer) -> Run:
    engine = Engine(model)
    size = weight_bytes(model)

    def run(request: dict[str, Any]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        shape = (request["prompts"], request["prompt_length"])
        prompts = torch.randint(model.settings.vocab_size, shape, generator=generator).tolist()
        limit, n = request["new_tokens"], request["samples"]
        answers = engine.generate([Request(prompt, limit, seed=seed, n=n) for seed, prompt in enumerate(prompts)])
        return {"work": sum(len(one.ids) for answer in answers for one in answer), "weight_bytes": size}

    return run


if __name__ == "__main__":
    serve(load)
