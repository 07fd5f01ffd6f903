"""Random tiny models in directories, and real servers of them on ports of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI

from ayni.config import ModelSettings
from ayni.model.checkpoint import save_model
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer, init_weights
from ayni.serve.worker import Worker
from ayni.text.tokenizer import Tokenizer

CONTEXT = 160


def language_model(tokenizer: Tokenizer, seed: int = 0) -> Transformer:
    """Its weights are large, so that its choices are clear: greedy answers do not hang on rounding."""
    settings = ModelSettings(
        vocab_size=tokenizer.vocab_size, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=64, max_seq_len=CONTEXT
    )
    model = Transformer(settings)
    init_weights(model, seed, std=0.3)
    return model


def write_language_model(directory: Path, tokenizer: Tokenizer, seed: int = 0) -> Path:
    save_model(language_model(tokenizer, seed), directory, tokenizer)
    return directory


def write_reward_model(directory: Path, tokenizer: Tokenizer, seed: int = 0) -> Path:
    head = ScalarHead.from_language_model(language_model(tokenizer, seed))
    torch.nn.init.normal_(head.score.weight, generator=torch.Generator().manual_seed(seed))
    save_model(head, directory, tokenizer)
    return directory


class Live:
    """A server under way."""

    def __init__(self, app: FastAPI, server: uvicorn.Server) -> None:
        self.app, self.server = app, server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.worker: Worker = app.state.serving.worker

    def rests(self, seconds: float = 5.0) -> bool:
        """Whether every slot and the queue become empty."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sessions = self.worker._sessions.values()
            jobs = sum(map(len, self.worker._requests.values()))
            if not jobs and all(session.idle for session in sessions) and not self.worker.waiting + self.worker.running:
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[Live]:
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.005)
    assert server.started
    try:
        yield Live(app, server)
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
    assert not app.state.serving.worker.alive
