"""transformers as oracle: the same numbers from the directories it writes, and from ours read by it, over random models."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from ayni.config import ModelSettings, RopeScaling
from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.model import ScalarHead, Transformer, init_weights
from ayni.model.checkpoint import load_model, load_scalar, save_model

from .small import relative_error, shake_norms

VOCABULARY, PAD, DIM, ORIGINAL, STRETCH = 160, 0, 48, 32, 4.0
TOLERANCE = 1e-5  # of the largest |logit|

KV_HEADS = (4, 2, 1)  # multi-head, grouped, multi-query
HEAD_DIMS = (12, 24, 20, 6)  # 12: dim // n_heads; with the others the heads are wider or narrower than the model
ROPE: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": STRETCH},
    "dynamic": {"rope_type": "dynamic", "factor": STRETCH},
    "llama3": {
        "rope_type": "llama3",
        "factor": STRETCH,
        "original_max_position_embeddings": ORIGINAL,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}
SCALING = {
    "default": None,
    "linear": RopeScaling(kind="linear", factor=STRETCH, original_max_seq_len=ORIGINAL),
    "dynamic": RopeScaling(kind="dynamic", factor=STRETCH, original_max_seq_len=ORIGINAL),
    "llama3": RopeScaling(kind="llama3", factor=STRETCH, original_max_seq_len=ORIGINAL),
}
CONTEXT = int(ORIGINAL * STRETCH)
FEW = [(4, 12, False), (2, 24, True), (1, 20, False), (2, 6, True)]  # (key/value heads, head_dim, tied)


def their_config(rope: str, kv_heads: int, head_dim: int, tied: bool) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=DIM,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        # The original context, except that Llama 3 checkpoints and plain ones name the whole.
        max_position_embeddings=ORIGINAL if rope in ("linear", "dynamic") else CONTEXT,
        rope_parameters={"rope_theta": 500.0, **ROPE[rope]},
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=PAD,
        num_labels=1,
    )


def their_model(kind: type, config: LlamaConfig, seed: int = 0) -> Any:
    """Weights large enough that a wrong detail shows in the logits, norms unlike 1."""
    model = kind(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("norm.weight"):
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    shake_norms(model)
    return model.eval()


def our_model(rope: str, kv_heads: int, head_dim: int, tied: bool) -> Transformer:
    scaling = SCALING[rope]
    settings = ModelSettings(
        vocab_size=VOCABULARY, dim=DIM, n_layers=2, n_heads=4, n_kv_heads=kv_heads, ffn_dim=80, head_dim=head_dim,
        max_seq_len=CONTEXT, rope_theta=500.0, rope_scaling=scaling, tie_embeddings=tied,
    )  # fmt: skip
    model = Transformer(settings)
    init_weights(model, seed=5, std=0.2)
    shake_norms(model)
    return model.eval()


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def their_logits(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).logits


@pytest.mark.parametrize("rope", ROPE)
def test_logits_of_directories_that_transformers_wrote(tmp_path: Path, rope: str) -> None:
    for kv_heads, head_dim, tied in itertools.product(KV_HEADS, HEAD_DIMS, (False, True)):
        theirs = their_model(LlamaForCausalLM, their_config(rope, kv_heads, head_dim, tied))
        theirs.save_pretrained(tmp_path)
        ours = load_model(tmp_path)
        for length in (ORIGINAL - 2, ORIGINAL + 40):  # within the original context, then beyond it
            x = tokens(2, length)
            with torch.no_grad():
                error = relative_error(ours(x), their_logits(theirs, x))
            assert error < TOLERANCE, f"{kv_heads} key/value heads, head_dim {head_dim}, tied {tied}, {length} tokens"


@pytest.mark.parametrize("rope", ROPE)
def test_transformers_reads_what_we_write(tmp_path: Path, rope: str) -> None:
    x = tokens(2, ORIGINAL + 40)
    for number, (kv_heads, head_dim, tied) in enumerate(FEW):
        ours, directory = our_model(rope, kv_heads, head_dim, tied), tmp_path / str(number)
        save_model(ours, directory)
        theirs, report = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert type(theirs) is LlamaForCausalLM
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        with torch.no_grad():
            error = relative_error(ours(x), their_logits(theirs, x))
        assert error < TOLERANCE, f"{kv_heads} key/value heads, head_dim {head_dim}, tied {tied}"


@pytest.mark.parametrize(
    ("rope", "kv_heads"), [("default", 4), ("default", 1), ("linear", 2), ("dynamic", 2), ("dynamic", 1), ("llama3", 2)]
)
def test_greedy_answers_are_those_of_transformers_cache(tmp_path: Path, rope: str, kv_heads: int) -> None:
    """Prompts of unlike lengths share our batch; each is alone in a fresh model of transformers (its dynamic RoPE keeps
    the longest length seen). With dynamic scaling the answers cross the original context, or begin beyond it."""
    theirs = their_model(LlamaForCausalLM, their_config(rope, kv_heads, 20, tied=False))
    theirs.save_pretrained(tmp_path)
    prompts = [tokens(1, length, seed=length)[0].tolist() for length in (1, 9, ORIGINAL - 1, ORIGINAL + 12)]
    answers = Engine(load_model(tmp_path)).generate([Request(p, max_new_tokens=70, temperature=0) for p in prompts])
    for prompt, (answer,) in zip(prompts, answers):
        fresh = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
        wanted = fresh.generate(torch.tensor([prompt]), max_new_tokens=70, do_sample=False, use_cache=True)
        assert answer.ids == wanted[0, len(prompt) :].tolist()
        assert len(set(answer.ids)) > 10, "an answer of one repeated token would prove little"


def padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def last_scores(model: ScalarHead, rows: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.stack([model(row[None])[0, -1] for row in rows])


@pytest.mark.parametrize("rope", ROPE)
def test_reward_models_both_ways(tmp_path: Path, rope: str) -> None:
    """transformers scores the last token that is not padding; so do we."""
    rows = [tokens(1, length, seed=length)[0] for length in (5, 20, ORIGINAL - 1)]
    for number, (kv_heads, head_dim, tied) in enumerate(FEW):
        theirs = their_model(LlamaForSequenceClassification, their_config(rope, kv_heads, head_dim, tied), seed=number)
        theirs.save_pretrained(tmp_path / f"theirs-{number}")
        ours = load_scalar(tmp_path / f"theirs-{number}")
        wanted = their_logits(theirs, padded(rows))[:, 0]
        assert relative_error(last_scores(ours, rows), wanted) < TOLERANCE

        save_model(ours, tmp_path / f"ours-{number}")
        again, report = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / f"ours-{number}", dtype=torch.float32, pad_token_id=PAD, output_loading_info=True
        )
        assert type(again) is LlamaForSequenceClassification
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        assert relative_error(their_logits(again, padded(rows))[:, 0], wanted) < TOLERANCE
