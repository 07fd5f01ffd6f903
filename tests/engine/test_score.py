from __future__ import annotations

import pytest
import torch

from ayni.engine.engine import Engine
from ayni.engine.score import log_probs_of, scores_of
from ayni.model.heads import ScalarHead

from .models import naive_log_probs, random_requests, tiny_model


@pytest.mark.parametrize("row_len", [None, 54, 96])
def test_trap_11_packed_log_probabilities_equal_those_of_a_row_alone(
    row_len: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ayni.engine.score.FORWARD_TOKENS", 300)  # several forward passes
    model = tiny_model()
    requests = random_requests(30)
    answers = [
        [(7 * step + len(request.prompt)) % 97 for step in range(request.max_new_tokens)] for request in requests
    ]
    prompts = [request.prompt for request in requests]
    for prompt, answer, logp in zip(prompts, answers, log_probs_of(model, prompts, answers, 0.7, row_len), strict=True):
        assert torch.allclose(logp.double(), naive_log_probs(model, prompt, answer, 0.7), atol=1e-5)
        assert not logp.requires_grad


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.2])
def test_trap_07_the_sampler_and_the_training_forward_agree(temperature: float) -> None:
    """A KL between the two that is not zero would be a bug of the sampler (TRAPS 2 and 7)."""
    model = tiny_model()
    requests = random_requests(64, temperature=temperature)
    completions = [samples[0] for samples in Engine(model, max_rows=20).generate(requests)]
    scored = log_probs_of(model, [r.prompt for r in requests], [c.ids for c in completions], temperature)
    for completion, logp in zip(completions, scored, strict=True):
        assert torch.allclose(torch.tensor(completion.logprobs), logp, atol=1e-4)


def test_trap_12_a_sequence_is_scored_at_its_last_token_whatever_its_company() -> None:
    head = ScalarHead.from_language_model(tiny_model())
    torch.nn.init.normal_(head.score.weight, generator=torch.Generator().manual_seed(0))
    sequences = [request.prompt for request in random_requests(40)]
    scores = scores_of(head, sequences)
    with torch.no_grad():
        alone = torch.stack([head(torch.tensor([ids]))[0, -1] for ids in sequences])
    assert scores.shape == (40,)
    assert torch.allclose(scores, alone, atol=1e-4)


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="97"):
        log_probs_of(tiny_model(), [[1]], [[2] * 96])
