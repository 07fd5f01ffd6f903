"""Who may ask and how much; every refusal comes in OpenAI's envelope."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ayni.serve.app import create_app
from ayni.serve.guard import MAX_BODY, is_loopback

from .tiny import Live

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def ask(live: Live, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(text) if text[:1] == b"{" else text
    finally:
        connection.close()


def error(answer: Any) -> dict[str, Any]:
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert len(answer["error"]["message"]) < 600
    return answer["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "body"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"stop": "\\ud800", "messages": [{"role": "user", "content": "x"}]}', "stop"),
        (b'{"temperature": NaN, "messages": [{"role": "user", "content": "x"}]}', "temperature"),
        (b'{"temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}', "temperature"),
        (b'{"seed": 1' + b"0" * 5000 + b', "messages": [{"role": "user", "content": "x"}]}', "parsing the body"),
        (b'{"n": "1", "messages": [{"role": "user", "content": "x"}]}', "n: "),
        (b'{"messages": ' + b"[" * 100_000, ""),
        (b'{"messages": "' + b"x" * 100_000 + b'"}', "messages"),
    ],
)
def test_broken_bodies(live: Live, body: bytes, says: str) -> None:
    status, _, answer = ask(live, "POST", CHAT, body, **JSON)
    assert status == 400
    assert says in error(answer)["message"]


def test_half_a_character_is_read_as_a_broken_one(live: Live) -> None:
    """What a page sends that cut a text inside an emoji."""
    body = b'{"messages": [{"role": "user", "content": "x\\ud83d"}], "max_tokens": 2}'
    assert ask(live, "POST", CHAT, body, **JSON)[0] == 200
    assert (
        ask(live, "POST", "/v1/completions", b'{"prompt": "\\ud83d", "max_tokens": 2, "echo": true}', **JSON)[0] == 200
    )
    for name in (b"model", b"user"):
        status, _, answer = ask(live, "POST", CHAT, b'{"%s": "\\ud83d", "messages": []}' % name, **JSON)
        assert status == 400
        error(answer)


def test_the_frameworks_own_errors_have_the_envelope(live: Live) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/static/none.js", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
    ):
        found, headers, answer = ask(live, method, path)
        assert (found, error(answer)["type"]) == (status, "invalid_request_error")
        assert status != 405 or headers["allow"]


def test_only_json_is_read(live: Live) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, _, answer = ask(live, "POST", CHAT, b"{}", Content_Type=kind)
        assert status == 415
        assert "application/json" in error(answer)["message"]


def test_large_bodies_are_refused_whether_or_not_they_say_how_large(live: Live) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 2**16 + 2):
            yield b" " * 2**16

    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    connection.putrequest("POST", CHAT)
    for name, value in {**JSON, "Content-Length": str(MAX_BODY + 1)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    error(json.loads(answer.read()))
    connection.close()

    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    connection.request("POST", CHAT, endless(), JSON, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    assert "8 MiB" in error(json.loads(answer.read()))["message"]
    connection.close()


def test_a_foreign_name_for_the_loopback_is_refused(live: Live) -> None:
    for host in (
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "10.0.0.1",
    ):
        status, _, answer = ask(live, "GET", "/v1/models", Host=host)
        assert status == 403, host
        assert error(answer)["code"] == "host_not_allowed"
    for host in ("localhost", f"localhost:{live.port}", "127.0.0.1:1", "[::1]:8000", "[::1]"):
        assert ask(live, "GET", "/v1/models", Host=host)[0] == 200, host


def test_loopback_addresses() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.9.1", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.2", "example.org", ""))


def test_the_key_covers_all_but_page_and_health(model_dir: Path) -> None:
    app = create_app([model_dir], api_key="s3cret", host="0.0.0.0")
    with TestClient(app, base_url="http://some.name") as client:
        for path in ("/", "/health", "/static/chat.js"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/v1/models/little", "/metrics", "/tokenizer_info", "/openapi.json", "/nothing"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert error(answer.json())["type"] == "authentication_error"
            assert client.get(path, headers={"Authorization": "Basic s3cret"}).status_code == 401
            allowed = client.get(path, headers={"Authorization": "Bearer s3cret"}).status_code
            assert allowed == (404 if path == "/nothing" else 200)
        for path in (CHAT, "/v1/completions", "/tokenize", "/detokenize", "/v1/score"):
            assert client.post(path, json={}).status_code == 401


def test_every_answer_tells_browsers_to_keep_to_themselves(live: Live) -> None:
    for path in ("/", "/static/chat.js", "/v1/models", "/nothing"):
        headers = ask(live, "GET", path, Origin="http://evil.example")[1]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert not any(name.startswith("access-control") for name in headers)


def test_a_failure_inside_is_a_500_without_details(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 4})
    with monkeypatch.context() as patched:
        patched.setattr("ayni.engine.session.Session.step", lambda _: 1 / 0)
        status, _, answer = ask(live, "POST", CHAT, body, **JSON)
    assert status == 500
    assert error(answer)["type"] == "server_error"
    assert "division" not in str(answer)
    assert "division" in caplog.text
    until = time.monotonic() + 5
    while ask(live, "GET", "/health")[0] != 200 and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(live, "POST", CHAT, body, **JSON)[0] == 200
