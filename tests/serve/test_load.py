"""Many clients at once, many of which hang up: no slot stays taken, and company never changes an answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ayni.serve.app import create_app

from .tiny import CONTEXT, Live, running

STREAMS = 64
CHAT = "/v1/chat/completions"
QUESTIONS = ["on the", "12 + 34 =", "yes?", "Tell me more about the rain.", "你好 👍", "a " * 40]


@pytest.fixture(scope="module")
def busy(model_dir: Path) -> Iterator[Live]:
    with running(create_app([model_dir], max_rows=12, max_queue=500)) as live:
        yield live


def body(question: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, **fields}


def alone(live: Live, length: int) -> dict[str, dict[str, Any]]:
    """Every answer, given while nobody else asks."""
    answers = {}
    for question in QUESTIONS:
        found = httpx.post(live.url + CHAT, json=body(question, max_tokens=length), timeout=30).json()
        answers[question] = found["choices"][0]
    return answers


async def stream(client: httpx.AsyncClient, request: dict[str, Any], patience: int | None) -> tuple[str, str | None]:
    """(text, finish reason); hangs up after `patience` lines."""
    text, finish = "", None
    async with client.stream("POST", CHAT, json=request | {"stream": True}) as response:
        assert response.status_code == 200
        lines = 0
        async for line in response.aiter_lines():
            if patience is not None and lines >= patience:
                return text, None
            lines += 1
            if line.startswith("data: {"):
                (choice,) = json.loads(line.removeprefix("data: "))["choices"]
                text += choice["delta"].get("content", "")
                finish = choice["finish_reason"] or finish
    return text, finish


async def load(live: Live, seconds: float, length: int) -> tuple[int, int]:
    """(completed, hung up) after that many seconds of STREAMS clients, each of whom does both at least once."""
    wanted = await asyncio.to_thread(alone, live, length)
    until = time.monotonic() + seconds
    completed, hung_up = [0] * STREAMS, [0] * STREAMS

    async def one(number: int) -> None:
        rng = random.Random(number)
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=live.url, timeout=60, limits=limits) as client:
            while time.monotonic() < until or not (completed[number] and hung_up[number]):
                question = rng.choice(QUESTIONS)
                request = body(question, max_tokens=length)
                way = rng.random()
                if way < 0.2:  # before anything came, whole or streamed
                    task = asyncio.create_task(client.post(CHAT, json=request | {"stream": rng.random() < 0.5}))
                    await asyncio.sleep(rng.random() * 0.1)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    hung_up[number] += 1
                elif way < 0.4:
                    await stream(client, request, patience=rng.randrange(12))
                    hung_up[number] += 1
                elif way < 0.8:
                    text, finish = await stream(client, request, None)
                    assert (text, finish) == (wanted[question]["message"]["content"], wanted[question]["finish_reason"])
                    completed[number] += 1
                else:
                    answer = (await client.post(CHAT, json=request)).json()
                    assert answer["choices"][0] == wanted[question]
                    completed[number] += 1

    await asyncio.gather(*(one(number) for number in range(STREAMS)))
    return sum(completed), sum(hung_up)


def assert_nothing_left(live: Live) -> None:
    assert live.rests()
    text = httpx.get(f"{live.url}/metrics").text
    assert "ayni_running_sequences 0.0" in text
    assert "ayni_waiting_sequences 0.0" in text
    assert "ayni_open_requests 1.0" in text  # the one that reads this


def test_streams_and_disconnects_leave_nothing_behind(busy: Live) -> None:
    completed, hung_up = asyncio.run(load(busy, seconds=4, length=24))
    assert min(completed, hung_up) >= STREAMS
    assert_nothing_left(busy)


@pytest.mark.slow
def test_a_minute_of_streams_and_disconnects(busy: Live) -> None:
    completed, hung_up = asyncio.run(load(busy, seconds=60, length=48))
    assert min(completed, hung_up) >= 2 * STREAMS
    assert_nothing_left(busy)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_who_hangs_up_gives_the_slot_back_at_once(busy: Live, path: str, streamed: bool) -> None:
    """A hundred samples would take seconds; the client leaves after the first came, or before."""
    asked = {"n": 100, "temperature": 1, "max_tokens": CONTEXT - 40, "stream": streamed}
    asked |= {"prompt": "on the"} if path != CHAT else {"messages": [{"role": "user", "content": "on the"}]}
    text = json.dumps(asked)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", busy.port)) as connection:
        connection.sendall((head + text).encode())
        until = time.monotonic() + 10
        while not busy.worker.running and time.monotonic() < until:
            time.sleep(0.001)
        assert busy.worker.running
    began = time.monotonic()
    assert_nothing_left(busy)
    assert time.monotonic() - began < 4  # a hundred samples to the end of the context take longer than that
