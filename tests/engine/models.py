"""A random tiny model whose distributions are peaked enough to tell tokens apart, and naive oracles for it."""

from __future__ import annotations

import random
from typing import Any

import torch

from ayni.config import ModelSettings
from ayni.engine.engine import Request
from ayni.model.transformer import Transformer, init_weights

VOCAB = 97  # no multiple of the sampler's block


def tiny_model(seed: int = 0, **changes: Any) -> Transformer:
    fields = {"vocab_size": VOCAB, "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 64}
    model = Transformer(ModelSettings(**(fields | {"max_seq_len": 96} | changes)))
    init_weights(model, seed, std=0.25)
    return model


def random_requests(count: int, seed: int = 0, temperature: float = 0.7, n: int = 1) -> list[Request]:
    rng = random.Random(seed)
    return [
        Request(
            prompt=[rng.randrange(VOCAB) for _ in range(rng.randint(1, 30))],
            max_new_tokens=rng.randint(1, 24),
            temperature=temperature,
            seed=1000 + number,
            n=n,
            stop_ids=(2, 5),
        )
        for number in range(count)
    ]


@torch.no_grad()
def naive_greedy(model: Transformer, prompt: list[int], steps: int, stop_ids: tuple[int, ...] = ()) -> list[int]:
    """The whole sequence anew for every token, no cache."""
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt) :]


@torch.no_grad()
def naive_log_probs(model: Transformer, prompt: list[int], answer: list[int], temperature: float) -> torch.Tensor:
    logits = model(torch.tensor([prompt + answer]))[0].double() / temperature
    logp = logits - logits.logsumexp(-1, keepdim=True)
    return torch.stack([logp[len(prompt) - 1 + step, token] for step, token in enumerate(answer)])


class Letters:
    """A stand-in tokenizer: id i is the i-th letter; decoding drops a leading space, as SentencePiece's does."""

    pad_id: int | None = None
    text = "abcdefghijklmnopqrstuvwxyz \n" * 4

    def decode(self, ids: list[int]) -> str:
        return "".join(self.text[i] for i in ids).removeprefix(" ")
