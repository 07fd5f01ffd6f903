"""A judge behind OpenAI's chat API, on loopback: what it says of two answers is a function that the test gives."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Say = Callable[[str, str, str], str]  # (model, answer A, answer B) -> the reply


class FakeJudge:
    """`asked`: (model, answer A, answer B) of every question, as they came."""

    def __init__(self, say: Say, seconds: float = 0.0) -> None:
        self.asked: list[tuple[str, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                a, b = (
                    re.search(rf"\[Answer {side}\]\n(.*)\n\[End of answer {side}\]", text, re.S)[1]  # type: ignore[index]
                    for side in "AB"
                )
                outer.asked.append((body["model"], a, b))
                time.sleep(seconds)
                content = json.dumps({"choices": [{"message": {"content": say(body["model"], a, b)}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(say: Say, seconds: float = 0.0) -> Iterator[FakeJudge]:
    judge = FakeJudge(say, seconds)
    thread = threading.Thread(target=judge.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield judge
    finally:
        judge.server.shutdown()
        thread.join()
        judge.server.server_close()


def longer(_model: str, a: str, b: str) -> str:
    """The longer answer is better, whatever its place."""
    return "[[A>B]]" if len(a) > len(b) else "[[B>A]]" if len(b) > len(a) else "[[A=B]]"
