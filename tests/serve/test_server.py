"""`serve` as a process: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ayni.serve.server import serve
from tests.conftest import environment

START = "import sys; from pathlib import Path; from ayni.serve.server import serve; serve([Path(sys.argv[1])], [Path(sys.argv[2])], port=0)"


def test_it_says_how_to_call_it_and_ends_quickly(model_dir: Path, reward_dir: Path) -> None:
    command = [sys.executable, "-c", START, str(model_dir), str(reward_dir)]
    quiet = environment(AYNI_QUIET="", PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                said += line
            url = re.search(r"http://127\.0\.0\.1:\d+", said)[0]  # type: ignore[index]
            assert re.search(r"little\s+language\s+160", said)
            assert re.search(r"taste\s+reward\s+160", said)
            body = re.search(r"-d '(.*)'", said)[1]  # type: ignore[index]
            assert f'OpenAI(base_url="{url}/v1"' in said
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", body.encode(), {"Content-Type": "application/json"}
            )
            until = time.monotonic() + 20
            while True:
                try:
                    answer = json.load(urllib.request.urlopen(request, timeout=20))
                    break
                except OSError:
                    assert time.monotonic() < until
                    time.sleep(0.05)
            assert answer["choices"][0]["finish_reason"] in ("stop", "length")
            endless = json.dumps({"prompt": ["on"] * 8, "n": 128, "max_tokens": 150, "stream": True}).encode()
            stream = urllib.request.Request(f"{url}/v1/completions", endless, {"Content-Type": "application/json"})
            with urllib.request.urlopen(stream, timeout=20) as under_way:
                under_way.readline()
                began = time.monotonic()
                process.send_signal(signal.SIGINT)
                rest = under_way.read().decode()
                _, errors = process.communicate(timeout=20)
                assert time.monotonic() - began < 15
            assert "shutting down" in rest
            assert rest.endswith("data: [DONE]\n\n")
        finally:
            process.kill()
    assert process.returncode == 0
    assert "loading: 2 models" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 lets other machines in: give --api-key"),
        ({"port": 70000}, "--port 70000"),
        ({"max_rows": 0}, "--max-rows 0"),
        ({"max_queue": 0}, "--max-queue 0"),
        ({"max_len": 1}, "--max-len 1"),
        ({"api_key": "two words"}, "--api-key"),
        ({"api_key": ""}, "--api-key"),
        ({"models": []}, "name a model"),
        ({"models": [Path("nowhere")]}, "nowhere: neither a model directory"),
        ({"host": "no.such.host.invalid", "api_key": "k"}, "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_loads(
    model_dir: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        serve(**({"models": [model_dir], "port": 0} | settings))


def test_a_port_in_use(model_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ValueError, match="choose another"):
            serve([model_dir], port=taken.getsockname()[1])
