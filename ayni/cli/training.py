"""From raw text to a chat model, stage by stage, on your own data (paper 2 and 3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ayni.cli.app import app
from ayni.cli.flags import Device, Lr, ModelDir, Out, Seed, Set, done, settings_of
from ayni.config import PretrainSettings, SFTSettings, ShardSettings, TokenizerSettings


@app.command(epilog="Example: ayni tokenizer --data corpus/ --out models/tokenizer --vocab-size 8000")
def tokenizer(
    data: Annotated[Path, typer.Option("--data", help="Texts: .txt, .jsonl, .parquet, or a folder of them.")],
    out: Out,
    vocab_size: Annotated[int, typer.Option(help="Number of pieces.")] = 2048,
    seed: Seed = 0,
) -> None:
    """Train a SentencePiece BPE tokenizer: digits split, unknown UTF-8 as bytes (paper 2.2)."""
    from ayni.stages import tokenizer as stage

    stage.run(TokenizerSettings(vocab_size=vocab_size), data, out, seed=seed)
    done(out, f"ayni pretrain --data {data} --tokenizer {out} --out models/base")


@app.command(
    epilog="Examples: ayni pretrain --data corpus/ --tokenizer models/tokenizer --out models/base --tokens 4000000 | "
    "torchrun --nproc_per_node=2 -m ayni pretrain --data ... "
)
def pretrain(
    data: Annotated[
        Path, typer.Option("--data", help="Texts: .txt, .jsonl, .parquet, or a folder of them (a file is a source).")
    ],
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="Directory with tokenizer.model or tokenizer.json.")],
    out: Out,
    preset: Annotated[
        str, typer.Option(help="Architecture: tiny, 7b, 13b, 34b, 70b; fields by --set model.dim=256.")
    ] = "tiny",
    tokens: Annotated[int | None, typer.Option(help="Token budget.")] = None,
    held_out: Annotated[Path | None, typer.Option("--held-out", help="Texts for held-out perplexity.")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Pretrain a Llama 2 model from raw text (paper 2); also under torchrun."""
    from ayni.stages import pretrain as stage
    from ayni.stages import shards
    from ayni.train.mesh import barrier, open_mesh

    settings = settings_of(PretrainSettings, {"preset": preset, "tokens": tokens}, lr, set_)
    mesh = open_mesh(device)
    packed = out.with_name(f"{out.name}-shards")
    if mesh.is_main:
        shards.run(ShardSettings(), tokenizer, data, held_out, packed, seed=seed)
    barrier(mesh)
    stage.run(settings, tokenizer, packed, out, seed=seed, device=device)
    done(out, f"ayni sft --model {out} --data chats.jsonl --out models/sft")


@app.command(epilog="Example: ayni sft --model models/base --data chats.jsonl --out models/sft")
def sft(
    model: ModelDir,
    data: Annotated[Path, typer.Option("--data", help="Chats: JSONL or Parquet rows with `messages`.")],
    out: Out,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data (paper: 2).")] = None,
    lr: Lr = None,
    seed: Seed = 0,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Supervised fine-tuning on dialogues: loss on answers only, samples packed (paper 3.1)."""
    from ayni.stages import sft as stage

    stage.run(settings_of(SFTSettings, {"epochs": epochs}, lr, set_), model, data, out, seed=seed, device=device)
    done(out, f"ayni chat {out}", f"ayni reward --model {out} --data preferences.jsonl --out models/reward")
