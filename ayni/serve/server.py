"""`ayni serve`: the application behind uvicorn, with what a newcomer needs to call it printed first."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from rich.text import Text

from ayni import telemetry
from ayni.config import ServedType
from ayni.serve.app import create_app
from ayni.serve.guard import is_loopback
from ayni.serve.models import Catalogue
from ayni.serve.worker import Worker

GRACE = 2.0  # seconds that open requests have after Ctrl-C to come to their end; then they are told that it is over


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self.worker = worker

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        over = threading.Timer(GRACE, self.worker.stop)
        over.daemon = True
        over.start()


def serve(
    models: Sequence[Path],
    rewards: Sequence[Path] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    max_rows: int = 32,
    max_queue: int = 256,
    max_len: int | None = None,
    device: str = "cpu",
    dtype: ServedType = "float32",
) -> None:
    """Serves until Ctrl-C. ValueError where the settings or the models are not fit to serve."""
    _check(models, rewards, host, port, api_key, max_rows, max_queue, max_len, device)
    if dtype == "int8" and device != "cpu":
        raise ValueError(f"--dtype int8 decodes on the CPU only; with --device {device} use bfloat16")
    with _listening(host, port) as listener:
        app = create_app(
            models,
            rewards,
            api_key=api_key,
            max_rows=max_rows,
            max_queue=max_queue,
            max_len=max_len,
            device=device,
            dtype=dtype,
            host=host,
        )
        _introduce(app.state.serving.catalogue, _url(host, listener.getsockname()[1]), api_key is not None)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=int(2 * GRACE)
        )
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn hands on once everything is closed
            Server(config, app.state.serving.worker).run(sockets=[listener])
        telemetry.say("stopped")


def _check(
    models: Sequence[Path],
    rewards: Sequence[Path],
    host: str,
    port: int,
    api_key: str | None,
    max_rows: int,
    max_queue: int,
    max_len: int | None,
    device: str,
) -> None:
    for good, problem in (
        (models or rewards, "name a model directory, or a reward model with --reward"),
        (0 <= port < 65536, f"--port {port}: expected a number from 0 (any free one) to 65535"),
        (max_rows > 0, f"--max-rows {max_rows}: expected 1 or more"),
        (max_queue > 0, f"--max-queue {max_queue}: expected 1 or more"),
        (max_len is None or max_len > 1, f"--max-len {max_len}: expected 2 tokens or more"),
        (
            api_key is None or (api_key.isascii() and len(api_key.split()) == 1),
            "--api-key: expected ASCII without spaces",
        ),
        (
            is_loopback(host) or api_key is not None,
            f"--host {host} lets other machines in: give --api-key (or AYNI_API_KEY), or stay on 127.0.0.1",
        ),
    ):
        if not good:
            raise ValueError(problem)
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise ValueError(f"--device {device}: this machine has no CUDA device that torch can use; leave it out")


def _listening(host: str, port: int) -> socket.socket:
    """Bound before the models load, so that a port in use is known at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ValueError(f"{host}, port {port}: {error.strerror}; choose another with --host or --port") from None
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _introduce(catalogue: Catalogue, url: str, with_key: bool) -> None:
    rows = [(model.id, model.kind, f"{model.max_len:,}", str(model.path)) for model in catalogue.all]
    telemetry.table(("model", "kind", "context", "directory"), rows)
    lines = [f"chat page  {url}/", f"API        {url}/v1   (OpenAPI document: {url}/openapi.json)", ""]
    key = "KEY" if with_key else "unused"
    if catalogue.language:
        body = {"model": catalogue.language[0].id, "messages": [{"role": "user", "content": "Hello"}]}
        header = f"  -H 'Authorization: Bearer {key}' \\\n" if with_key else ""
        lines += [
            f"curl {url}/v1/chat/completions \\",
            f"{header}  -H 'Content-Type: application/json' -d '{json.dumps(body)}'",
            "",
            "from openai import OpenAI",
            f'client = OpenAI(base_url="{url}/v1", api_key="{key}")',
            f"answer = client.chat.completions.create(**{json.dumps(body)})",
            "",
        ]
    text = "\n".join([*lines, "Ctrl-C stops the server."])
    telemetry.results_console.print(Text(text), soft_wrap=True)  # lines to copy stay whole
