"""What the server says of itself: its models, its health, its figures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ayni.serve.errors import APIError
from ayni.serve.models import Served
from ayni.serve.responses import Health, ModelEntry, ModelList
from ayni.serve.serving import ERRORS, Serving, serving

router = APIRouter()


def _entry(model: Served) -> ModelEntry:
    return ModelEntry(id=model.id, created=model.created, max_model_len=model.max_len, kind=model.kind)


@router.get("/v1/models", responses=ERRORS)
async def models(serving: Annotated[Serving, Depends(serving)]) -> ModelList:
    """The models of this server, language models first."""
    return ModelList(data=[_entry(model) for model in serving.catalogue.all])


@router.get("/v1/models/{model}", responses=ERRORS)
async def model(model: str, serving: Annotated[Serving, Depends(serving)]) -> ModelEntry:
    """One of them."""
    return _entry(serving.catalogue.any_model(model))


@router.get("/health", responses=ERRORS)
async def health(serving: Annotated[Serving, Depends(serving)]) -> Health:
    """200 while the worker lives."""
    if not serving.worker.alive:
        raise APIError(503, "the worker has stopped; start the server again", code="unavailable")
    return Health()


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **ERRORS},
)
async def metrics(serving: Annotated[Serving, Depends(serving)]) -> Response:
    """Prometheus text."""
    return Response(serving.metrics.text(), media_type=CONTENT_TYPE_LATEST)
