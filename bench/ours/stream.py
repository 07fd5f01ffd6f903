"""Our engine on one stream: greedy, token by token. Set-up: model (a directory), prompt (ids), new_tokens, compiled, int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.model.checkpoint import load_model
from bench.costs import weight_bytes
from bench.worker import serve


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    model = load_model(Path(setup["model"]), torch.bfloat16)
    engine = Engine(model, max_rows=1, compiled=setup["compiled"], int8=setup["int8"])

    def run(_: dict[str, Any]) -> dict[str, Any]:
        ids = list(engine.stream(Request(setup["prompt"], setup["new_tokens"], temperature=0)))
        return {"work": len(ids), "cost": len(ids) * weight_bytes(engine.decoder), "ids": ids}

    return run


if __name__ == "__main__":
    serve(load)
