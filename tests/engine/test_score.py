from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ayni import telemetry
from ayni.engine.engine import Engine
from ayni.engine.score import log_probs_of, prompt_log_probs, scores_of
from ayni.model.checkpoint import save_model
from ayni.model.heads import ScalarHead

from .models import VOCAB, naive_log_probs, random_requests, tiny_model


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
    with telemetry.progress("scoring", len(sequences), "answers") as bar:
        scores = scores_of(head, sequences, bar=bar)
    assert bar.done == len(sequences)
    with torch.no_grad():
        alone = torch.stack([head(torch.tensor([ids]))[0, -1] for ids in sequences])
    assert scores.shape == (40,)
    assert torch.allclose(scores, alone, atol=1e-4)


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="97"):
        log_probs_of(tiny_model(), [[1]], [[2] * 96])


TEXTS = [[3], [5, 1], *(request.prompt for request in random_requests(10, seed=4)), [7 * i % VOCAB for i in range(96)]]


def test_prompt_log_probabilities_by_a_naive_full_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ayni.engine.score.CHUNK_LOGITS", 10 * VOCAB)
    model = tiny_model().train()
    logits_at_once: list[int] = []
    hook = model.output.register_forward_hook(lambda _module, _inputs, logits: logits_at_once.append(logits.numel()))
    found = prompt_log_probs(model, TEXTS, top=4)
    hook.remove()
    assert max(logits_at_once) == 10 * VOCAB
    assert model.training
    for ids, scored in zip(TEXTS, found, strict=True):
        if len(ids) == 1:
            assert (scored.logprobs, scored.top) == ([], [])
            continue
        with torch.no_grad():
            logp = torch.log_softmax(model(torch.tensor([ids]))[0].double(), -1)[:-1]
        expected = logp.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        assert torch.allclose(torch.tensor(scored.logprobs).double(), expected, atol=1e-5)
        best, order = logp.topk(4)
        assert [[id for id, _ in top] for top in scored.top] == order.tolist()
        assert torch.allclose(
            torch.tensor([[value for _, value in top] for top in scored.top]).double(), best, atol=1e-5
        )
    assert [scored.top for scored in prompt_log_probs(model, TEXTS)] == [[]] * len(TEXTS)


def test_prompt_log_probabilities_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_model(seed=2)
    save_model(model, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for ids, scored in zip(TEXTS, prompt_log_probs(model, TEXTS), strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor([ids])).logits[0]
        targets = torch.tensor(ids[1:], dtype=torch.int64)
        loss = torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="none")
        assert torch.allclose(torch.tensor(scored.logprobs), -loss, atol=1e-4)


def test_texts_that_cannot_be_scored_are_refused() -> None:
    for text, top, message in (
        ([], 0, "sequence 1: it has 0 tokens; give 1 to 96"),
        ([1] * 97, 0, "sequence 1: it has 97 tokens"),
        ([1, 97], 0, "an id that is not among 0 to 96"),
        ([1], 98, "top is 98"),
    ):
        with pytest.raises(ValueError, match=message):
            prompt_log_probs(tiny_model(), [[1], text], top)
