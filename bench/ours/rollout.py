"""Our engine on the rollout: every sample has a limit of its own, and none ends before it.

Set-up: model (a directory), prompts (lists of ids), limits (per prompt, of each of its samples).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.model.checkpoint import load_model
from ayni.train.allocator import keep_freed_memory
from bench.worker import serve


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    keep_freed_memory()  # as the stages do
    engine = Engine(load_model(Path(setup["model"]), torch.bfloat16), compiled=True)

    def run(request: dict[str, Any]) -> dict[str, Any]:
        answers = engine.generate(
            [
                Request(prompt, limit, temperature=1.0, seed=1000 * number + nth)
                for number, (prompt, limits) in enumerate(zip(setup["prompts"], setup["limits"], strict=True))
                for nth, limit in enumerate(limits)
            ]
        )
        return {"work": sum(len(answer.ids) for (answer,) in answers)}

    return run


if __name__ == "__main__":
    serve(load)
