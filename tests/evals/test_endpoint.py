"""A server that is asked many prompts: one that stumbles on purpose."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ayni.evals import endpoint as module
from ayni.evals.endpoint import KEY_VARIABLE, Endpoint, endpoint


class Stumbling:
    """Answers "echo: LAST MESSAGE". `planned`: (status, headers, body) given first, in order; None hangs up."""

    def __init__(self) -> None:
        self.planned: list[tuple[int, dict[str, str], bytes] | None] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    planned = outer.planned.pop(0) if outer.planned else ()
                if planned is None:
                    self.connection.close()
                    return
                said = {"choices": [{"message": {"content": f"echo: {body['messages'][-1]['content']}"}}]}
                status, headers, content = planned or (200, {}, json.dumps(said).encode())
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def stumbling() -> Iterator[Stumbling]:
    script = Stumbling()
    thread = threading.Thread(target=script.server.serve_forever, args=(0.01,))
    thread.start()
    yield script
    script.server.shutdown()
    thread.join()
    script.server.server_close()


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_come_in_the_order_of_the_prompts(stumbling: Stumbling) -> None:
    texts = [f"number {i}" for i in range(20)]
    assert Endpoint(stumbling.url, "m").answers(said(*texts)) == [f"echo: {text}" for text in texts]
    assert all(body["model"] == "m" and body["temperature"] == 0 for body in stumbling.asked)
    assert set(stumbling.paths) == {"/v1/chat/completions"}
    assert all("Authorization" not in headers for headers in stumbling.headers)
    assert Endpoint(stumbling.url, "m").answers([]) == []


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_may_be_any_of_the_usual_forms(tail: str) -> None:
    assert Endpoint(f"http://localhost:1{tail}", "m").chat_url == "http://localhost:1/v1/chat/completions"


def test_what_was_answered_is_not_asked_again(stumbling: Stumbling, tmp_path: Path) -> None:
    cache = tmp_path / "answers.jsonl"
    asking = Endpoint(stumbling.url, "m", cache=cache, parallel=1, tries=1)
    stumbling.planned = [(200, {}, b'{"choices": [{"message": {"content": "one"}}]}'), (400, {}, b"no")]
    with pytest.raises(ValueError, match="says no: 400, no"):
        asking.answers(said("a", "b"))
    assert asking.answers(said("a", "b")) == ["one", "echo: b"]
    assert [body["messages"][0]["content"] for body in stumbling.asked] == ["a", "b", "b"]
    with cache.open("a") as torn:
        torn.write('{"key": "to')  # the process was killed here
    assert asking.answers(said("a", "b", "a")) == ["one", "echo: b", "one"]
    assert len(stumbling.asked) == 3
    other = Endpoint(stumbling.url, "m", cache=cache, max_tokens=7)  # another question, though the same words
    assert other.answers(said("a")) == ["echo: a"]


def test_equal_prompts_are_samples_of_their_own_above_temperature_0(stumbling: Stumbling, tmp_path: Path) -> None:
    warm = Endpoint(stumbling.url, "m", temperature=1.0, cache=tmp_path / "c.jsonl")
    assert len(warm.answers(said("a", "a", "a"))) == 3
    assert len(stumbling.asked) == 3
    warm.answers(said("a", "a", "a"))
    assert len(stumbling.asked) == 3
    Endpoint(stumbling.url, "m").answers(said("b", "b"))
    assert len(stumbling.asked) == 4


def test_a_busy_or_broken_server_is_asked_again(stumbling: Stumbling, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    stumbling.planned = [(429, {"Retry-After": "3"}, b"{}"), (503, {}, b"busy"), None, (500, {}, b"")]
    assert Endpoint(stumbling.url, "m", parallel=1).answers(said("a")) == ["echo: a"]
    assert pauses[0] == 3.0
    assert 1.0 <= pauses[1] <= 2.0
    assert 2.0 <= pauses[2] <= 4.0 <= pauses[3] <= 8.0
    stumbling.planned = [(429, {"Retry-After": "90000"}, b"{}")]
    Endpoint(stumbling.url, "m").answers(said("b"))
    assert pauses[4] == module.LONGEST_PAUSE


def test_it_gives_up_after_its_tries(stumbling: Stumbling) -> None:
    stumbling.planned = [(503, {}, b'{"error": {"message": "the model is loading"}}')] * 3
    with pytest.raises(ValueError, match=r"no answer after 3 tries \(503, the model is loading\). Is the server up"):
        Endpoint(stumbling.url, "m", tries=3, pause=0.001).answers(said("a"))
    with pytest.raises(ValueError, match=r"no answer after 2 tries \(.*refused"):
        Endpoint("http://127.0.0.1:9", "m", tries=2, pause=0.001).answers(said("a"))


def test_a_server_that_never_answers_runs_into_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"no answer after 2 tries \(timed out"):
            Endpoint(address, "m", timeout=0.1, tries=2, pause=0.001).answers(said("a"))
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("planned", "says"),
    [
        ((401, {}, b'{"error": {"message": "no key"}}'), f"401, no key. Give a key .*{KEY_VARIABLE}"),
        ((404, {}, b"{}"), "404, .*Does it serve 'm'"),
        ((302, {"Location": "http://elsewhere.invalid/"}, b""), "says no: 302"),
        ((200, {}, b"<html>"), "the reply is no chat completion: '<html>'"),
        ((200, {}, b'{"choices": []}'), "no chat completion"),
        ((200, {}, b'{"choices": [{"message": {"content": [1]}}]}'), "the answer is not text"),
    ],
)
def test_a_no_is_a_no(stumbling: Stumbling, planned: tuple[int, dict[str, str], bytes], says: str) -> None:
    stumbling.planned = [planned]
    with pytest.raises(ValueError, match=says):
        Endpoint(stumbling.url, "m", pause=30).answers(said("a"))
    assert len(stumbling.asked) == 1


def test_the_key_comes_from_the_environment_and_is_never_shown(
    stumbling: Stumbling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret-1")
    asking = endpoint(f"{stumbling.url}#org/model-x", tmp_path / "c.jsonl")
    assert "secret-1" not in repr(asking)
    asking.answers(said("a"))
    assert stumbling.headers[0]["Authorization"] == "Bearer secret-1"
    assert stumbling.asked[0]["model"] == "org/model-x"
    assert "secret-1" not in (tmp_path / "c.jsonl").read_text()


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("127.0.0.1:8000#m", "no address of a server"),
        ("file:///etc/passwd#m", "no address of a server"),
        ("http://127.0.0.1:8000", "name the model"),
        ("http://me:hush@host/v1#m", f"give the key in {KEY_VARIABLE}"),
        ("http://host/a b#m", "no address of a server"),
    ],
)
def test_addresses_that_cannot_be_meant(where: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        endpoint(where)
    assert "hush" not in str(error.value)


def test_an_empty_answer_is_an_answer(stumbling: Stumbling) -> None:
    stumbling.planned = [(200, {}, b'{"choices": [{"message": {"content": null}}]}')]
    assert Endpoint(stumbling.url, "m").answers(said("a")) == [""]
