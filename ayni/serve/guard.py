"""Who may ask, and how much: the checks in front of every endpoint, as one middleware.

Host: a server on the loopback without a key answers only to the loopback's names, so that a web page cannot reach it
through a name of its own that resolves here (DNS rebinding). Content type: only JSON is read, which a page of another
origin cannot send without asking first (and no CORS header ever says yes). Key: compared in constant time.
"""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ayni.serve.errors import APIError, server_error

MAX_BODY = 8 * 2**20  # bytes
FREE = ("/", "/health", "/favicon.ico")  # and /static/: what is served without a key
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    def __init__(self, app: ASGIApp, api_key: str | None, loopback_only: bool) -> None:
        self.app, self.loopback_only = app, loopback_only
        self.expected = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
            body = _Body(receive)
            await self.app(scope, body.receive, with_headers)
        except APIError as error:
            await error.response()(scope, receive, with_headers)
        except Exception as error:
            if begun:
                raise
            await server_error(error).response()(scope, receive, with_headers)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """In the order of what may be told to whom: a stranger learns only that they are one."""
        if self.loopback_only and not is_loopback(_host_name(headers.get("host", ""))):
            raise APIError(403, "this server answers to localhost and 127.0.0.1 only", code="host_not_allowed")
        path = scope["path"]
        if self.expected is not None and path not in FREE and not path.startswith("/static/"):
            self._check_key(headers.get("authorization", ""))
        if scope["method"] in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise APIError(415, "send the body as JSON, with Content-Type: application/json")
            length = headers.get("content-length", "")
            if length.isdigit() and int(length[:20]) > MAX_BODY:
                raise _too_large()

    def _check_key(self, authorization: str) -> None:
        assert self.expected is not None
        scheme, _, key = authorization.partition(" ")
        given = key.strip().encode("latin-1", "replace")
        if not (hmac.compare_digest(given, self.expected) and scheme.lower() == "bearer"):
            hint = "incorrect API key" if authorization else "no API key"
            message = f"{hint}; send the header Authorization: Bearer KEY, with the key the server was started with"
            raise APIError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class _Body:
    """Counts a body as it comes in, since a chunked one does not say how long it will be."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._size = receive, 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > MAX_BODY:
                raise _too_large()
        return message


def _too_large() -> APIError:
    return APIError(413, f"the body is larger than {MAX_BODY // 2**20} MiB; send less at once", code="body_too_large")


def _host_name(host: str) -> str:
    """Of `name`, `name:port`, `[::1]` or `[::1]:port`."""
    return host.partition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
