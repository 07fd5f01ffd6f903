"""The application: models loaded, worker running, endpoints and the page in front of them, checks around it all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from ayni import __version__
from ayni.config import ServedType
from ayni.serve import chat, completions, errors, scores, status, tokens
from ayni.serve.guard import Guard, is_loopback
from ayni.serve.metrics import Measured, Metrics
from ayni.serve.models import Catalogue, load_models
from ayni.serve.serving import Serving
from ayni.serve.worker import Worker

PAGE = Path(__file__).parent / "page"


def create_app(
    models: Sequence[Path],
    rewards: Sequence[Path] = (),
    *,
    api_key: str | None = None,
    max_rows: int = 32,
    max_queue: int = 256,
    max_len: int | None = None,
    device: str = "cpu",
    dtype: ServedType = "float32",
    host: str = "127.0.0.1",
) -> FastAPI:
    """Loads the models and returns the application; its worker lives from startup to shutdown.

    `max_rows` samples of a model are decoded together, `max_queue` more may wait. Bound to a loopback `host` without a
    key, it answers only to the loopback's names.
    """
    catalogue = load_models(models, rewards, max_rows, max_len, device, dtype)
    return application(catalogue, api_key=api_key, max_queue=max_queue, host=host)


def application(catalogue: Catalogue, *, api_key: str | None, max_queue: int, host: str) -> FastAPI:
    """The application over models that are loaded."""
    worker = Worker({model.id: model.engine for model in catalogue.language}, max_queue)
    metrics = Metrics()
    metrics.watch(lambda: worker.running, lambda: worker.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await run_in_threadpool(worker.stop)

    app = FastAPI(
        title="Ayni",
        version=__version__,
        description="OpenAI's API, answered by Llama-architecture models on this machine.",
        lifespan=lifespan,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.serving = Serving(catalogue, worker, metrics)
    errors.install(app)
    for part in (status, chat, completions, tokens, scores):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=PAGE))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    # The one added last is the outermost.
    app.add_middleware(Guard, api_key=api_key, loopback_only=api_key is None and is_loopback(host))
    app.add_middleware(Measured, metrics=metrics)
    return app
