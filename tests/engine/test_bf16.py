"""In bf16 a request's answer is the same to the bit whatever shares its batch; compiled decoding; int8 weights."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import pytest
import torch

from ayni.engine import decoding
from ayni.engine.engine import Engine, Request
from ayni.engine.int8 import Int8Linear, int8_copy
from ayni.engine.score import log_probs_of
from ayni.model.transformer import Transformer

from .models import VOCAB, random_requests, tiny_model

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler on this machine: nothing can be compiled"
)
COMPILED = [False, pytest.param(True, marks=needs_compiler)]


def bf16_model() -> Transformer:
    return tiny_model(dim=64, n_kv_heads=4, head_dim=16, ffn_dim=128, max_seq_len=200).to(torch.bfloat16)


def long_requests(count: int) -> list[Request]:
    rng = random.Random(1)
    return [
        replace(request, prompt=[rng.randrange(VOCAB) for _ in range(rng.randint(1, 130))])
        for request in random_requests(count, temperature=0.9, n=2)
    ]


@pytest.mark.parametrize("compiled", COMPILED)
def test_bf16_answers_are_bitwise_independent_of_batch_mates(compiled: bool) -> None:
    model, requests = bf16_model(), long_requests(40)
    together = Engine(model, max_rows=80, compiled=compiled).generate(requests)
    order = list(range(40))
    random.Random(0).shuffle(order)
    shuffled = Engine(model, max_rows=11, compiled=compiled).generate([requests[i] for i in order])
    for place, number in enumerate(order):
        assert shuffled[place] == together[number]
    for number in range(0, 40, 4):
        assert Engine(model, max_rows=2, compiled=compiled).generate([requests[number]])[0] == together[number]


@needs_compiler
def test_compiled_decoding_in_fp32_is_the_eager_one() -> None:
    model = tiny_model()
    greedy = random_requests(40, temperature=0.0)
    for mine, eager in zip(Engine(model, compiled=True).generate(greedy), Engine(model).generate(greedy)):
        assert mine[0].ids == eager[0].ids
    sampled = random_requests(30, temperature=0.8)
    for request, (completion,) in zip(sampled, Engine(model, compiled=True).generate(sampled)):
        (wanted,) = log_probs_of(model, [request.prompt], [completion.ids], 0.8)
        gap = (torch.tensor(completion.logprobs) - wanted).abs()
        assert gap.max() < 1e-3
        assert gap.mean() < 1e-5


@needs_compiler
def test_weights_swapped_in_place_are_used_without_compiling_again() -> None:
    model, other = tiny_model(), tiny_model(seed=5)
    engine, requests = Engine(model, compiled=True), random_requests(20, temperature=0.0)
    engine.generate(requests)
    entries = compiled_entries()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters()):
            mine.copy_(theirs)
    assert [a[0].ids for a in engine.generate(requests)] == [a[0].ids for a in Engine(other).generate(requests)]
    assert compiled_entries() == entries


def compiled_entries() -> int:
    return len(torch._dynamo.eval_frame._debug_get_cache_entry_list(decoding.decode_layer))


def test_equal_prompts_are_prefilled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (request,) = tiny_model(), random_requests(1)
    alone = [Engine(model).generate([replace(request, seed=seed)])[0][0].ids for seed in range(6)]
    read = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda tokens, *rest: read.append(tokens.shape) or forward(tokens, *rest))
    together = Engine(model).generate([replace(request, seed=seed) for seed in range(6)])
    assert [answer.ids for (answer,) in together] == alone
    assert [shape for shape in read if shape[1] > 1] == [(1, len(request.prompt))]


def test_int8_weights_are_the_nearest_of_255_steps() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    layer = Int8Linear(weight)
    step_o = layer.scale.float().unsqueeze(1)
    assert (
        (layer.weight * step_o - weight).abs() <= step_o * 0.5 * 1.02
    ).all()  # 2%: the largest may lie outside by that
    x = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(1)).bfloat16()
    wanted = x.float() @ (layer.weight * step_o).t()
    assert ((layer(x).float() - wanted).abs().max() / wanted.abs().max()) < 1e-2


@pytest.mark.parametrize("compiled", COMPILED)
def test_int8_decoding_stays_close_and_leaves_the_model_alone(compiled: bool) -> None:
    model = bf16_model()
    before = [p.clone() for p in model.parameters()]
    requests = [replace(request, max_new_tokens=1) for request in long_requests(30)]
    engine = Engine(model, compiled=compiled, int8=True)
    for request, answers in zip(requests, engine.generate([replace(r, max_new_tokens=12) for r in requests])):
        for answer in answers:
            (wanted,) = log_probs_of(model.float(), [request.prompt], [answer.ids], request.temperature)
            model.bfloat16()
            assert (torch.tensor(answer.logprobs) - wanted).abs().mean() < 0.15
    assert all(map(torch.equal, before, model.parameters()))
    kinds = [type(module) for module in int8_copy(model).modules() if isinstance(module, (Int8Linear, torch.nn.Linear))]
    assert kinds.count(Int8Linear) == 2 * 7
    assert kinds.count(torch.nn.Linear) == 1  # the output: a vocabulary of 97 is not made of blocks
