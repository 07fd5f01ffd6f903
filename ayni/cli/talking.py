"""Asking a model: the server, the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ayni.cli.app import app
from ayni.cli.flags import Device, Dtype


@app.command(
    epilog="Examples: ayni serve runs/tiny | ayni serve models/sft models/v2 --reward models/helpfulness | "
    "AYNI_API_KEY=secret ayni serve models/v2 --host 0.0.0.0"
)
def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL...]", help="Model directories, or run directories (their latest model)."),
    ] = None,
    reward_models: Annotated[
        list[Path] | None, typer.Option("--reward", help="Reward model, for /v1/score and the page; repeatable.")
    ] = None,
    host: Annotated[str, typer.Option(help="Other addresses than loopback need an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="AYNI_API_KEY", help="Asked of every request but the page and /health."),
    ] = None,
    max_rows: Annotated[int, typer.Option("--max-rows", help="Answers of a model that are decoded together.")] = 32,
    max_queue: Annotated[
        int, typer.Option("--max-queue", help="Requests of a model that may wait; beyond it, 429.")
    ] = 256,
    max_len: Annotated[
        int | None, typer.Option("--max-len", help="Tokens of prompt and answer; default: the model's context.")
    ] = None,
    dtype: Dtype = "float32",
    device: Device = "cpu",
) -> None:
    """Answer over HTTP as OpenAI's API does, with a chat page at /."""
    from ayni.serve.server import serve as serve_models

    serve_models(
        models or [],
        reward_models or [],
        host=host,
        port=port,
        api_key=api_key,
        max_rows=max_rows,
        max_queue=max_queue,
        max_len=max_len,
        device=device,
        dtype=dtype,
    )


@app.command(
    epilog="Examples: ayni chat runs/tiny | ayni chat models/sft models/v2 --temperature 0 | "
    "ayni chat models/smollm2 --dtype int8"
)
def chat(
    model: Annotated[Path, typer.Argument(help="A model directory, or a run directory (its latest model).")],
    second: Annotated[
        Path | None, typer.Argument(metavar="[MODEL2]", help="Another one, to compare side by side.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 200,
    seed: Annotated[int | None, typer.Option(help="For the same answers every time.")] = None,
    dtype: Dtype = "float32",
) -> None:
    """Talk to a model in the terminal, or to two side by side."""
    from ayni.serve.terminal import chat_in_terminal

    models = [model] if second is None else [model, second]
    chat_in_terminal(models, system, temperature, max_new_tokens, seed, dtype)
