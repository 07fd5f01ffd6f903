"""What every endpoint works with, and how work comes to the worker: refusals of the queue become HTTP errors here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import Receive

from ayni.engine.request import Request as EngineRequest
from ayni.serve.errors import APIError, ErrorEnvelope, server_error
from ayni.serve.metrics import CLIENT_GONE, Metrics
from ayni.serve.models import Catalogue
from ayni.serve.worker import Job, QueueFull, Worker, WorkerStopped

T = TypeVar("T")
RETRY_AFTER = "1"  # seconds
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "What was wrong with the request"},
    "5XX": {"model": ErrorEnvelope, "description": "What went wrong here"},
}


@dataclass(frozen=True)
class Serving:
    catalogue: Catalogue
    worker: Worker
    metrics: Metrics

    def submit(self, model: str, requests: Sequence[EngineRequest]) -> Job:
        with self.refusals():
            return self.worker.submit(model, requests)

    async def call(self, *functions: Callable[[], T]) -> list[T]:
        """On the worker's thread, where nothing else computes, one between two steps."""
        with self.refusals():
            return await self.worker.call(*functions)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """What the worker raises, as the client is to hear of it."""
        try:
            yield
        except QueueFull:
            self.metrics.rejected.inc()
            message = "as many requests wait as this server lets wait; try again in a moment"
            raise APIError(429, message, code="queue_full", headers={"Retry-After": RETRY_AFTER}) from None
        except WorkerStopped:
            raise APIError(503, "the server is shutting down, or its worker has died", code="unavailable") from None
        except APIError:
            raise
        except Exception as error:
            raise server_error(error) from error


def serving(request: Request) -> Serving:
    """FastAPI's dependency."""
    return request.app.state.serving


async def disconnected(receive: Receive) -> None:
    """Ends when the client hangs up. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client hangs up."""
    gone, task = asyncio.create_task(disconnected(request.receive)), asyncio.create_task(work)
    try:
        await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise APIError(CLIENT_GONE, "the client hung up")
    finally:
        await ended(gone, task)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels what still runs and lets it clear up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
