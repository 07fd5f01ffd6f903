"""Server-sent events: one JSON object a line, `[DONE]` at the end, an error in the envelope if it comes on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ayni.serve.errors import APIError, ErrorEnvelope
from ayni.serve.serving import disconnected, ended


class EventStream(Response):
    """Sends events as they come. Whatever ends it, a client that hangs up too, `cancel` is called."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[BaseModel], cancel: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.cancel = events, cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone, sending = asyncio.create_task(disconnected(receive)), asyncio.create_task(self._send(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self.cancel()
            await ended(gone, sending)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self.events:
                await _send_data(send, event.model_dump_json())
        except APIError as error:
            await _send_data(send, ErrorEnvelope(**error.envelope()).model_dump_json())
        await _send_data(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_data(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})
