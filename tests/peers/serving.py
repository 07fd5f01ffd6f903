"""`ayni serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from tests.conftest import environment

START_TIMEOUT = 240  # seconds


class Server:
    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read().decode()

    @property
    def model(self) -> str:
        """The name that the server gives its first model."""
        return json.loads(self.get("/v1/models"))["data"][0]["id"]

    def answered(self) -> int:
        """Requests to the completion endpoints so far that were answered with success, by the server's own count."""
        lines = re.findall(r"^ayni_\S*requests_total\{(.*)\} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return sum(int(float(count)) for labels, count in lines if "completions" in labels and '"200"' in labels)


@contextmanager
def serving(model: Path, log: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ayni", "serve", str(model), "--port", str(port)]
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, env=environment(), stdout=stream, stderr=subprocess.STDOUT) as process,
    ):
        server = Server(port, log)
        try:
            _wait(server, process)
            yield server
        finally:
            process.terminate()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        assert process.poll() is None, server.log.read_text()
        try:
            server.get("/health")
        except (URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no answer within {START_TIMEOUT} s: {server.log.read_text()}")
