"""What Prometheus reads at /metrics: a registry of this server's own, so that two servers in one process do not mix."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CLIENT_GONE = 499  # nginx's status for a client that hung up before its answer


class Metrics:
    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        by = ("endpoint",)
        self.requests = Counter("ayni_requests", "HTTP requests answered", (*by, "status"), registry=own)
        self.seconds = Histogram("ayni_request_seconds", "Whole request", by, buckets=SECONDS, registry=own)
        self.first_token = Histogram("ayni_first_token_seconds", "Until the first token", buckets=SECONDS, registry=own)
        self.prompt_tokens = Counter("ayni_prompt_tokens", "Tokens read", ("model",), registry=own)
        self.new_tokens = Counter("ayni_generated_tokens", "Tokens sampled", ("model",), registry=own)
        self.rejected = Counter("ayni_queue_rejections", "Requests refused for a full queue", registry=own)
        self.open = Gauge("ayni_open_requests", "HTTP requests under way", registry=own)
        self._running = Gauge("ayni_running_sequences", "Sequences in slots", registry=own)
        self._waiting = Gauge("ayni_waiting_sequences", "Sequences in the queue", registry=own)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Measured:
    """Middleware: counts and times every request under its route's name, whatever answered it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), CLIENT_GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.metrics.open.track_inprogress():
            try:
                await self.app(scope, receive, noting)
            finally:
                endpoint = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(endpoint, str(status)).inc()
                self.metrics.seconds.labels(endpoint).observe(time.perf_counter() - began)
