from __future__ import annotations

import functools
import random
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ayni.engine.cache import GROWTH
from ayni.engine.engine import Engine, Request
from ayni.engine.session import PREFILL_TOKENS, Session, Token
from ayni.model.transformer import Transformer

from .models import Letters, random_requests, tiny_model

POOL = [
    *random_requests(12, seed=1, temperature=0.0, n=2),
    *random_requests(12, seed=2, temperature=0.9, n=3),
    *(replace(request, stop_strings=("e", "xy")) for request in random_requests(6, seed=3, temperature=1.3)),
]
Answers = dict[tuple[int, int], list[Token]]  # by request and sample


@functools.cache
def model() -> Transformer:
    return tiny_model()


def session_of(max_rows: int) -> Session:
    return Session(Engine(model(), Letters(), max_rows=max_rows))  # type: ignore[arg-type]


@functools.cache
def alone(number: int) -> list[tuple[list[int], str]]:
    """Ids and end of each sample of a request of the pool that has the engine to itself, sample by sample."""
    engine = Engine(model(), Letters(), max_rows=1)  # type: ignore[arg-type]
    return [(completion.ids, completion.finish) for completion in engine.generate([POOL[number]])[0]]


def take(session: Session, answers: Answers) -> list[Token]:
    tokens = session.step()
    for token in tokens:
        so_far = answers.setdefault((token.request, token.sample), [])
        assert not so_far or so_far[-1].finish is None, "a token after the last one"
        so_far.append(token)
    return tokens


def drain(session: Session, answers: Answers) -> None:
    while not session.idle:
        assert take(session, answers)


def is_empty(session: Session) -> bool:
    batch, rows = session.batch, session.batch.rows
    held = (batch.live, batch.scheduler.running, batch.scheduler.waiting, batch.split)
    return not any(held) and batch.cache.k.numel() == 0 and all(array.size == 0 for array in vars(rows).values())


ROUND = st.tuples(
    st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=3),  # who comes
    st.integers(1, 4),  # steps
    st.one_of(st.none(), st.integers(1, 6)),  # who goes: the latest request, the one before, ...
)


@settings(max_examples=25, deadline=None)
@given(rounds=st.lists(ROUND, min_size=4, max_size=10), max_rows=st.sampled_from([1, 3, 8]))
def test_whoever_comes_and_goes_an_answer_is_the_one_given_alone(
    rounds: list[tuple[list[int], int, int | None]], max_rows: int
) -> None:
    session = session_of(max_rows)
    asked: dict[int, int] = {}  # session's number -> pool's
    cancelled: set[int] = set()
    answers: Answers = {}
    for newcomers, steps, back in rounds:
        for pooled in newcomers:
            asked[session.add(POOL[pooled])] = pooled
        for _ in range(steps):
            assert not cancelled & {token.request for token in take(session, answers)}
        if back is not None:
            session.cancel(len(asked) - back)
            cancelled |= {len(asked) - back} & set(asked)
        assert session.running <= max_rows
    drain(session, answers)
    for number, pooled in asked.items():
        for nth, (ids, finish) in enumerate(alone(pooled)):
            tokens = answers.get((number, nth), [])
            if number not in cancelled or (tokens and tokens[-1].finish):
                assert ([token.id for token in tokens], tokens[-1].finish) == (ids, finish)
            else:
                assert [token.id for token in tokens] == ids[: len(tokens)]
    assert is_empty(session)


def test_cancelling_frees_slots_and_queue_at_once() -> None:
    session = session_of(max_rows=4)
    long = Request([3, 1, 4], 60, temperature=0.8, seed=1, n=6)
    first, second = session.add(long), session.add(replace(long, seed=2, n=1))
    session.step()
    assert (session.running, session.waiting) == (4, 3)
    session.cancel(first)
    assert (session.running, session.waiting, session.idle) == (0, 1, False)
    assert [token.request for token in session.step()] == [second]
    session.cancel(first)
    session.cancel(99)
    assert (session.running, session.waiting) == (1, 0)
    session.cancel(second)
    assert session.idle
    assert session.step() == []
    assert is_empty(session)


def test_a_cancelled_requests_prompt_is_forgotten_while_others_run() -> None:
    session = session_of(max_rows=3)
    session.add(Request([1, 2], 50, seed=1))
    split = session.add(Request([3, 1, 4], 50, seed=2, n=6))
    session.step()
    assert session.batch.split is not None
    session.cancel(split)
    assert (session.batch.split, session.running, session.waiting) == (None, 1, 0)


def test_a_newcomer_is_served_by_the_next_step_while_a_slot_is_free() -> None:
    session = session_of(max_rows=32)
    for seed in range(31):
        session.add(Request([seed, 1], 80, temperature=1.0, seed=seed))
    session.step()
    session.step()
    late = session.add(Request([7, 7, 7], 5, temperature=0.0))
    assert {token.request for token in session.step()} == {late}
    assert len(session.step()) == 32


def test_first_come_first_served() -> None:
    session = session_of(max_rows=2)
    rng = random.Random(0)
    numbers = [session.add(Request([1] * rng.randint(1, 30), rng.randint(1, 9), seed=seed)) for seed in range(40)]
    answers: Answers = {}
    drain(session, answers)
    assert [number for number, _ in answers] == numbers


def test_long_prompts_are_prefilled_a_few_at_a_time() -> None:
    large = tiny_model(max_seq_len=PREFILL_TOKENS)
    session = Session(Engine(large, max_rows=32))
    for seed in range(8):
        session.add(Request([1] * (PREFILL_TOKENS // 2), 3, seed=seed))
    assert [len(session.step()) for _ in range(4)] == [2, 2, 2, 4]  # prefill and decoding in turn


def test_newcomers_hold_up_nobody_who_is_under_way() -> None:
    """However many short requests wait, a running answer has a token at every second step at least."""
    session = session_of(max_rows=4)
    session.add(Request([5, 6, 7], 40, temperature=0.0))
    session.step()
    for seed in range(200):
        session.add(Request([5, 6], 1, seed=seed))
    idle = longest = 0
    for _ in range(60):
        idle = 0 if any(token.request == 0 for token in session.step()) else idle + 1
        longest = max(longest, idle)
    assert longest == 1


def test_a_session_that_serves_200_requests_does_not_grow() -> None:
    session = session_of(max_rows=6)
    rng = random.Random(5)
    answers: Answers = {}
    asked: dict[int, int] = {}
    most_rows = most_length = most_queued = 0
    while len(asked) < 200 or not session.idle:
        if len(asked) < 200 and session.waiting < 8:
            pooled = rng.randrange(len(POOL))
            asked[session.add(POOL[pooled])] = pooled
        if rng.random() < 0.03:
            session.cancel(rng.choice(list(asked)))
        take(session, answers)
        batch = session.batch
        if session.running:
            most_rows = max(most_rows, session.running)
            most_length = max(most_length, int(batch.rows.length[: session.running].max()))
        most_queued = max(most_queued, len(batch.live))
        _, rows, _, length, _ = batch.cache.k.shape
        assert rows <= 6
        assert length <= 1.5 * most_length + GROWTH
    assert len(answers) > 300
    assert most_queued <= 6 + 8
    assert is_empty(session)


def test_memory_is_given_back_while_others_still_run() -> None:
    large = tiny_model(max_seq_len=4096)
    session = Session(Engine(large, max_rows=8))
    big = session.add(Request([5] * 2000, 2000, temperature=1.0, n=8))
    short = Request([5, 6], 40, temperature=1.0, seed=3)
    session.step()
    session.cancel(big)
    small = session.add(short)
    before = [token.id for _ in range(10) for token in session.step()]
    other = session.add(Request([5] * 2000, 2000, temperature=1.0, n=7))
    during = [token.id for token in session.step() if token.request == small]
    peak = session.batch.cache.k.numel()
    session.cancel(other)
    assert session.batch.cache.k.numel() < peak / 20
    after = []
    while not session.idle:
        after += [token.id for token in session.step()]
    assert [*before, *during, *after] == Engine(large).generate([short])[0][0].ids


def test_a_session_and_a_batch_run_agree_and_the_model_keeps_its_mode() -> None:
    trained = tiny_model().train()
    requests = random_requests(30, temperature=0.8, n=2)
    whole = Engine(trained).generate(requests)
    session = Session(Engine(trained, max_rows=7))
    answers: Answers = {}
    for request in requests:
        session.add(request)
    drain(session, answers)
    assert trained.training
    for (number, nth), tokens in answers.items():
        completion = whole[number][nth]
        assert [token.id for token in tokens] == completion.ids
        assert torch.allclose(
            torch.tensor([token.logprob for token in tokens]), torch.tensor(completion.logprobs), atol=1e-3
        )
        assert [token.finish for token in tokens] == [None] * (len(tokens) - 1) + [completion.finish]
    assert len(answers) == 60


def test_a_request_that_cannot_be_served_is_refused_and_leaves_nothing() -> None:
    session = Session(Engine(tiny_model(max_seq_len=32), max_rows=2))
    for request, message in (
        (Request([7] * 32, 1), "has 32 tokens and the context holds 32"),
        (Request([1, 97], 1), "holds token 97, and the model knows 0 to 96"),
        (Request([-1], 1), "holds token -1"),
        (Request([1], 1, top_logprobs=98), "top_logprobs is 98, and the vocabulary has 97"),
        (Request([1], 1, stop_strings=("a",)), "stop strings need"),
    ):
        with pytest.raises(ValueError, match=message):
            session.add(request)
    assert session.idle
    assert is_empty(session)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_top_logprobs_are_the_largest_of_the_full_distribution(temperature: float) -> None:
    requests = [
        replace(request, top_logprobs=number % 4, top_p=0.5) for number, request in enumerate(random_requests(16))
    ]
    requests = [replace(request, temperature=temperature) for request in requests]
    session = session_of(max_rows=5)
    answers: Answers = {}
    for request in requests:
        session.add(request)
    drain(session, answers)
    by_request = defaultdict(list)
    for (number, _), tokens in answers.items():
        by_request[number] = [token.top for token in tokens]
        request, ids = requests[number], list(requests[number].prompt)
        for token in tokens:
            with torch.no_grad():
                logp = torch.log_softmax(model()(torch.tensor([ids]))[0, -1].double() / (temperature or 1.0), 0)
            ids.append(token.id)
            if not request.top_logprobs:
                assert token.top is None
                continue
            expected, order = logp.topk(request.top_logprobs)
            assert [id for id, _ in token.top] == order.tolist()
            assert torch.allclose(torch.tensor([value for _, value in token.top]).double(), expected, atol=1e-4)
            assert dict(token.top).get(token.id, token.logprob) == pytest.approx(token.logprob, abs=1e-5)
            assert temperature > 0 or token.top[0][0] == token.id
    for number, (completion,) in enumerate(Engine(model(), max_rows=9).generate(requests)):
        tops = [[id for id, _ in top] for top in completion.top or []]
        assert tops == [[id for id, _ in top] for top in by_request[number] if top]
        assert (completion.top is None) == (requests[number].top_logprobs == 0)
