from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from ayni.config import RopeScaling
from ayni.engine.engine import Engine, Request
from ayni.model.transformer import Transformer

from .models import Letters, naive_greedy, naive_log_probs, random_requests, tiny_model


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_cached_batched_generation_equals_a_naive_full_forward_loop(kv_heads: int) -> None:
    model = tiny_model(n_kv_heads=kv_heads)
    requests = random_requests(40, temperature=0.0)
    for request, (completion,) in zip(requests, Engine(model, max_rows=16).generate(requests)):
        expected = naive_greedy(model, request.prompt, request.max_new_tokens, request.stop_ids)
        assert completion.ids == expected
        assert completion.finish == ("stop" if expected[-1] in request.stop_ids else "length")


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_a_request_gives_the_same_answer_alone_and_in_any_company(temperature: float) -> None:
    model = tiny_model()
    requests = random_requests(64, temperature=temperature, n=2)
    together = Engine(model, max_rows=64).generate(requests)
    shuffled = list(range(64))
    random.Random(0).shuffle(shuffled)
    other_order = Engine(model, max_rows=7).generate([requests[i] for i in shuffled])
    for place, number in enumerate(shuffled):
        alone = Engine(model, max_rows=1).generate([requests[number]])[0]
        for a, b, c in zip(together[number], other_order[place], alone, strict=True):
            assert a.ids == b.ids == c.ids
            assert torch.allclose(torch.tensor([a.logprobs, b.logprobs]), torch.tensor([c.logprobs] * 2), atol=1e-3)


def test_trap_01_log_probabilities_are_log_softmax_of_logits_over_temperature() -> None:
    model = tiny_model()
    requests = random_requests(20, temperature=0.7, n=2)
    for request, completions in zip(requests, Engine(model).generate(requests)):
        for completion in completions:
            expected = naive_log_probs(model, request.prompt, completion.ids, 0.7)
            assert torch.allclose(torch.tensor(completion.logprobs).double(), expected, atol=1e-4)


@pytest.mark.parametrize("max_rows", [100, 8, 3])
def test_a_prompt_is_prefilled_once_for_all_its_samples(max_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    requests = [Request(list(range(11)), 6, seed=1, n=20), Request(list(range(5, 16)), 6, seed=2, n=5)]
    whole = Engine(model, max_rows=100).generate(requests)
    forward, prefilled = model.forward, 0

    def counting(tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal prefilled
        prefilled += tokens.numel() if tokens.shape[1] > 1 else 0
        return forward(tokens, *args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    completions = Engine(model, max_rows=max_rows).generate(requests)
    assert prefilled == 2 * 11
    assert [[c.ids for c in samples] for samples in completions] == [[c.ids for c in samples] for samples in whole]
    assert len({tuple(completion.ids) for completion in completions[0]}) > 10


def test_samples_of_a_request_do_not_depend_on_how_many_there_are() -> None:
    model = tiny_model()
    request = Request([4, 5, 6], 12, seed=9, n=6)
    six, two = Engine(model).generate([request, replace(request, n=2)])
    assert [completion.ids for completion in six[:2]] == [completion.ids for completion in two]


def test_generation_ends_at_the_context_and_long_prompts_are_refused() -> None:
    model = tiny_model(max_seq_len=32)
    prompt = [7] * 20
    (completion,) = Engine(model).generate([Request(prompt, 100, temperature=0.0)])[0]
    assert (len(completion.ids), completion.finish) == (12, "length")
    assert completion.ids == naive_greedy(model, prompt, 12)
    (capped,) = Engine(model, max_len=24).generate([Request(prompt, 100, temperature=0.0)])[0]
    assert capped.ids == completion.ids[:4]
    with pytest.raises(ValueError, match=r"request 1: its prompt has 32 tokens and the context holds 32"):
        Engine(model).generate([Request(prompt, 1), Request([7] * 32, 1)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": []}, "no token"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"n": 0}, "n is 0"),
        ({"seed": -1}, "seed"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_logprobs": -1}, "top_logprobs"),
    ],
)
def test_impossible_requests_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**({"prompt": [1], "max_new_tokens": 4} | wrong))


def test_stop_strings_end_only_the_rows_that_have_them() -> None:
    model, tokenizer = tiny_model(), Letters()
    free = Request([3, 1, 4], 40, temperature=1.3, seed=3, n=8)
    stopping = replace(free, stop_strings=("e", "xy"))
    engine = Engine(model, tokenizer, max_rows=12)  # type: ignore[arg-type]
    whole, cut = engine.generate([free, stopping])
    for completion, shorter in zip(whole, cut, strict=True):
        ends = [
            end for end in range(1, len(completion.ids) + 1)
            if any(stop in tokenizer.decode(completion.ids[:end]) for stop in stopping.stop_strings)
        ]  # fmt: skip
        assert shorter.ids == completion.ids[: ends[0] if ends else None]
        assert shorter.finish == ("stop" if ends else "length")
    assert any(completion.finish == "stop" for completion in cut)
    with pytest.raises(ValueError, match="stop strings need"):
        Engine(model).generate([stopping])


class Words(Letters):
    """Every token is three letters long: a stop string mostly begins and ends in the middle of tokens."""

    def decode(self, ids: list[int]) -> str:
        return "".join(self.text[i] + self.text[2 * i % 27] + self.text[5 * i % 27] for i in ids)


def test_a_stop_string_may_be_completed_in_the_middle_of_a_token() -> None:
    model, tokenizer = tiny_model(), Words()
    free = Request([3, 1, 4], 40, temperature=1.3, seed=3, n=12)
    engine = Engine(model, tokenizer)  # type: ignore[arg-type]
    whole = engine.generate([free])[0]
    text = tokenizer.decode(whole[0].ids)
    inside = text[28:33]  # ends with the second letter of the 11th token
    cut = engine.generate([replace(free, stop_strings=(inside, "zq!"))])[0]
    for completion, shorter in zip(whole, cut, strict=True):
        ends = [end for end in range(1, 41) if inside in tokenizer.decode(completion.ids[:end])]
        assert shorter.ids == completion.ids[: ends[0] if ends else None]
        assert shorter.finish == ("stop" if ends else "length")
    assert len(cut[0].ids) <= 11
    assert cut[0].finish == "stop"


class Growing:
    """Keys and values of one row, each with the angle of its time."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if layer in self.layers:
            k, v = (torch.cat([old, new], 2) for old, new in zip(self.layers[layer], (k, v)))
        self.layers[layer] = (k, v)
        return k, v


@torch.no_grad()
def naive_cached_greedy(model: Transformer, request: Request) -> list[int]:
    """One row alone: its prompt in one piece, then token by token over the growing keys."""
    T, cache, ids = len(request.prompt), Growing(), []
    mask = torch.ones(1, T, T, dtype=torch.bool).tril()
    logits = model(torch.tensor([request.prompt]), mask_BTS=mask, cache=cache)
    for position in range(T, T + request.max_new_tokens):
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in request.stop_ids:
            break
        logits = model(torch.tensor([ids[-1:]]), torch.tensor([[position]]), cache=cache)
    return ids


def test_dynamic_rope_turns_every_row_by_its_own_length() -> None:
    """Padding and neighbours must not lengthen a row: short and long prompts share prefills and steps here."""
    scaling = RopeScaling(kind="dynamic", factor=4.0, original_max_seq_len=24)
    model = tiny_model(rope_scaling=scaling)
    requests = [*random_requests(40, temperature=0.0), Request([5, 9] * 30, 30, temperature=0.0)]
    answers = [completion.ids for (completion,) in Engine(model, max_rows=12).generate(requests)]
    assert answers == [naive_cached_greedy(model, request) for request in requests]
    plain = [completion.ids for (completion,) in Engine(tiny_model(), max_rows=12).generate(requests)]
    assert answers != plain


def test_trap_10_padding_never_comes_out_and_eos_does() -> None:
    model, tokenizer = tiny_model(), Letters()
    with torch.no_grad():
        model.output.weight[6] = 40 * model.output.weight.mean(0)  # loud, for better or worse
    requests = [replace(request, stop_ids=(2,)) for request in random_requests(60, temperature=1.3)]
    loud = {token for (completion,) in Engine(model).generate(requests) for token in completion.ids}
    tokenizer.pad_id = 6
    completions = Engine(model, tokenizer).generate(requests)  # type: ignore[arg-type]
    assert 6 in loud
    assert 6 not in {token for (completion,) in completions for token in completion.ids}
    assert all((completion.finish == "stop") == (completion.ids[-1] == 2) for (completion,) in completions)
    assert all(2 not in completion.ids[:-1] for (completion,) in completions)
    assert any(completion.finish == "stop" for (completion,) in completions)


def test_the_engine_samples_from_the_live_weights_and_restores_train_mode() -> None:
    model = tiny_model().train()
    engine = Engine(model)
    request = Request([3, 1, 4], 10, temperature=0.0)
    before = engine.generate([request])[0][0]
    with torch.no_grad():
        model.output.weight.copy_(model.output.weight.flip(0))
    after = engine.generate([request])[0][0]
    assert before.ids != after.ids
    assert after.ids == naive_greedy(model, request.prompt, 10)
    assert model.training
    logits = model(torch.tensor([[3, 1, 4]]))
    logits.sum().backward()  # nothing the engine made stands in the way of training
    assert model.output.weight.grad is not None


def test_stream_yields_what_generate_returns() -> None:
    model = tiny_model().train()
    for request in random_requests(5):
        stream = Engine(model).stream(request)
        first = next(stream)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert [first, *stream] == Engine(model).generate([request])[0][0].ids
    assert model.training


def test_progress_counts_samples_and_tokens() -> None:
    model = tiny_model()
    requests = random_requests(10, n=3)
    calls: list[tuple[int, int, int]] = []
    completions = Engine(model, max_rows=8).generate(requests, lambda *call: calls.append(call))
    tokens = sum(len(completion.ids) for samples in completions for completion in samples)
    assert calls[-1] == (30, 30, tokens)
    assert calls == sorted(calls)


def test_long_answers_outgrow_the_first_reservation_of_the_cache() -> None:
    model = tiny_model(max_seq_len=400)
    requests = [Request([number], 300, temperature=0.0) for number in (1, 2, 3)]
    for request, (completion,) in zip(requests, Engine(model).generate(requests)):
        assert completion.ids[:150] == naive_greedy(model, request.prompt, 150)
        assert len(completion.ids) == 300


def test_no_requests_give_no_completions() -> None:
    assert Engine(tiny_model()).generate([]) == []
