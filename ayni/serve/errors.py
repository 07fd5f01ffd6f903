"""Errors as OpenAI's API gives them: one envelope for everything, and the status codes that its clients know."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

LONGEST_MESSAGE = 500  # characters: an error does not send a huge input back
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
log = logging.getLogger("ayni.serve")


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    error: ErrorBody


class APIError(HTTPException):
    """What the client gets instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param, self.code = param, code

    def envelope(self) -> dict[str, Any]:
        message = self.detail if len(self.detail) <= LONGEST_MESSAGE else self.detail[:LONGEST_MESSAGE] + " ..."
        kind = TYPES.get(self.status_code, TYPES[400])
        body = ErrorBody(message=message, type=kind, param=self.param, code=self.code)
        return ErrorEnvelope(error=body).model_dump()

    def response(self) -> JSONResponse:
        return JSONResponse(self.envelope(), self.status_code, headers=self.headers)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> APIError:
    return APIError(400, message, param, code)


def server_error(error: BaseException) -> APIError:
    """Something here broke: the log says what, the client only that."""
    log.error("a request failed", exc_info=error)
    return APIError(500, "the server failed while it worked on this request; its log says why", code="internal_error")


def install(app: FastAPI) -> None:
    """Every error of the framework comes out in the envelope, too."""

    @app.exception_handler(APIError)
    async def known(_: Request, error: APIError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _validation(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        known = {404: f"there is nothing at {request.url.path[:100]}", 405: f"{request.method} is not allowed here"}
        message = known.get(error.status_code, str(error.detail))
        return APIError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> JSONResponse:
        return server_error(error).response()


def _validation(mistakes: Any) -> APIError:
    """The first mistake that pydantic found, with the field's path and without the value.

    Where a field may be of several kinds pydantic reports one mistake for each: then all are said, of the field itself.
    """
    first: Mapping[str, Any] = mistakes[0]
    if first["type"] in ("json_invalid", "json_type"):
        return bad_request("the body is not valid JSON")
    paths = [[str(part) for part in mistake["loc"] if part != "body"] for mistake in mistakes]
    same = [mistake["msg"] for mistake, path in zip(mistakes, paths) if path[:1] == paths[0][:1]]
    field = ".".join(paths[0] if len(same) == 1 else paths[0][:1]) or None
    message = " / ".join(dict.fromkeys(same))
    return bad_request(f"{field or 'body'}: {message}"[:LONGEST_MESSAGE], param=field and field[:100])
