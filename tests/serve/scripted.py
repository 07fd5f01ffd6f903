"""A stand-in for the server whose answers a test dictates, and applications behind uvicorn in a thread."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from ayni.serve.app import PAGE
from ayni.serve.guard import HEADERS

HOSTILE = '<img src="x" onerror="document.title = \'owned\'"><b>bold</b> & <script>document.title = "owned"</script>'


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application behind uvicorn in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Script:
    """A server whose answers follow from the last message; it notes what it is asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.hung_up = threading.Event()
        self.key: str | None = None
        self.app = FastAPI()
        self.app.mount("/static", StaticFiles(directory=PAGE))
        self.app.get("/")(lambda: FileResponse(PAGE / "index.html", headers=HEADERS))
        self.app.get("/v1/models")(self.models)
        self.app.post("/v1/chat/completions")(self.chat)

    def models(self, request: Request) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "no API key"}}, 401)
        entries = [{"id": name, "kind": "language", "max_model_len": 2048} for name in ("one", "two")]
        return JSONResponse({"object": "list", "data": entries})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        refused = {"busy": (429, "as many requests wait as may"), "long": (400, "5000 tokens; the context holds 2048")}
        last = body["messages"][-1]["content"]
        if last in refused:
            status, message = refused[last]
            return JSONResponse({"error": {"message": message}}, status)
        return StreamingResponse(self.events(last, body["model"]), media_type="text/event-stream")

    async def events(self, last: str, model: str) -> AsyncIterator[str]:
        def event(**fields: Any) -> str:
            return f"data: {json.dumps({'choices': [], **fields})}\r\n\r\n"

        def delta(text: str) -> str:
            return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])

        pieces = ["Grüße ", "🐈 ", f"from {model}"] if last != "html" else list(HOSTILE)
        for piece in pieces:
            yield delta(piece)
        if last == "break":
            return
        if last == "fail":
            yield event(error={"message": "the server failed", "code": "internal_error"})
        try:
            while last == "endless":
                yield delta(" and")
                await asyncio.sleep(0.02)
        finally:
            if last == "endless":
                self.hung_up.set()
        yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        yield event(usage={"completion_tokens": 17})
        yield "data: [DONE]\n\n"
