from __future__ import annotations

import random

import pytest
import torch

from ayni.engine.continuations import likelihoods
from ayni.model.transformer import Transformer

from .models import VOCAB, naive_log_probs, tiny_model


def naive(model: Transformer, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    logp = naive_log_probs(model, context, continuation, 1.0)
    logits = model(torch.tensor([context + continuation]))[0, len(context) - 1 : -1]
    return float(logp.sum()), bool((logits.argmax(1) == torch.tensor(continuation)).all())


def test_likelihoods_equal_a_naive_loop_whatever_shares_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ayni.engine.continuations.FORWARD_TOKENS", 200)  # several forward passes
    monkeypatch.setattr("ayni.engine.continuations.CHUNK_LOGITS", 7 * VOCAB)
    model, rng = tiny_model(), random.Random(0)
    pairs = []
    for _ in range(12):
        context = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 30))]
        greedy = model(torch.tensor([context]))[0, -1].argmax().item()
        pairs += [(context, [rng.randrange(VOCAB)]) for _ in range(3)]  # one reading serves all four
        pairs += [(context, [greedy]), (context, [rng.randrange(VOCAB) for _ in range(rng.randint(2, 9))])]
    with torch.no_grad():
        expected = [naive(model, *pair) for pair in pairs]
    found = likelihoods(model, pairs)
    assert [each.log_prob for each in found] == pytest.approx([log_prob for log_prob, _ in expected], abs=1e-4)
    assert [each.is_greedy for each in found] == [is_greedy for _, is_greedy in expected]
    assert sum(each.is_greedy for each in found) >= 12


def test_a_context_beyond_the_model_loses_its_beginning() -> None:
    model = tiny_model()  # 96 tokens
    context, continuation = [token % VOCAB for token in range(150)], [5, 6, 7]
    [long] = likelihoods(model, [(context, continuation)])
    [short] = likelihoods(model, [(context[-94:], continuation)])  # 94 + 3 - 1 = 96 are read
    assert long == short
    with pytest.raises(ValueError, match="pair 0: its continuation has 97 tokens and the model reads 96"):
        likelihoods(model, [([1], [2] * 97)])


def test_nothing_asked_nothing_answered() -> None:
    assert likelihoods(tiny_model(), []) == []
