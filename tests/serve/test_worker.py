"""The worker's thread alone: jobs, cancelling, failures, the queue's limit, its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest

from ayni.engine.engine import Engine, Request
from ayni.engine.session import Session, Token
from ayni.serve.worker import Job, QueueFull, Worker, WorkerStopped
from ayni.text.tokenizer import Tokenizer

from .tiny import language_model

T = TypeVar("T")


@pytest.fixture(scope="module")
def engines(serve_tokenizer: Tokenizer) -> dict[str, Engine]:
    return {
        name: Engine(language_model(serve_tokenizer, seed), serve_tokenizer, max_rows=4)
        for seed, name in enumerate("ab")
    }


def request(number: int = 0, n: int = 1, tokens: int = 12) -> Request:
    return Request([1, 40 + number, 60], tokens, temperature=0.0, seed=number, n=n)


async def ids_of(job: Job) -> dict[int, list[int]]:
    ids: dict[int, list[int]] = {}
    async for batch in job:
        for token in batch:
            ids.setdefault(token.choice, []).append(token.id)
    return ids


def with_worker(engines: dict[str, Engine], work: Callable[[Worker], Awaitable[T]], max_queue: int = 100) -> T:
    async def run() -> T:
        worker = Worker(engines, max_queue)
        worker.start()
        try:
            return await asyncio.wait_for(work(worker), 30)
        finally:
            worker.stop()
            assert not worker.alive

    return asyncio.run(run())


async def rest(worker: Worker) -> None:
    while worker.running or worker.waiting:
        await asyncio.sleep(0.005)


def test_jobs_of_two_models_get_their_own_answers(engines: dict[str, Engine]) -> None:
    requests = [request(number) for number in range(6)]
    wanted = {name: [one[0].ids for one in engine.generate(requests)] for name, engine in engines.items()}
    assert wanted["a"] != wanted["b"]

    async def work(worker: Worker) -> dict[str, dict[int, list[int]]]:
        jobs = {name: worker.submit(name, requests) for name in engines}
        return {name: await ids_of(job) for name, job in jobs.items()}

    found = with_worker(engines, work)
    assert {name: [ids[i] for i in range(6)] for name, ids in found.items()} == wanted


def test_cancelled_jobs_leave_at_once_and_the_others_stay(engines: dict[str, Engine]) -> None:
    async def work(worker: Worker) -> dict[int, list[int]]:
        running = worker.submit("a", [request(0, n=3, tokens=100)])
        waiting = worker.submit("a", [request(1, n=9, tokens=100)])
        kept = worker.submit("a", [request(2)])
        await anext(aiter(running))
        waiting.cancel()
        running.cancel()
        ids = await ids_of(kept)
        running.cancel()
        await rest(worker)
        assert not any(worker._requests.values())
        return ids

    wanted = engines["a"].generate([request(2)])[0][0].ids
    assert with_worker(engines, work) == {0: wanted}


def test_a_failing_step_fails_its_own_model_and_the_worker_goes_on(
    engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Session.step
    broken = True

    def sometimes(session: Session) -> list[Token]:
        if broken and session.engine is engines["a"]:
            raise RuntimeError("a kernel gave up")
        return step(session)

    monkeypatch.setattr(Session, "step", sometimes)

    async def work(worker: Worker) -> None:
        nonlocal broken
        failing, fine = worker.submit("a", [request(), request(1)]), worker.submit("b", [request()])
        with pytest.raises(RuntimeError, match="gave up"):
            await ids_of(failing)
        assert len(await ids_of(fine)) == 1
        broken = False
        assert worker.alive
        assert len((await ids_of(worker.submit("a", [request()])))[0]) == 12

    with caplog.at_level(logging.ERROR):
        with_worker(engines, work)
    assert "a step of model a failed" in caplog.text


def test_a_request_that_the_engine_refuses_takes_its_job_along(engines: dict[str, Engine]) -> None:
    async def work(worker: Worker) -> None:
        job = worker.submit("a", [request(), Request([1] * 1000, 5)])
        with pytest.raises(ValueError, match="1000 tokens"):
            await ids_of(job)
        await rest(worker)

    with_worker(engines, work)


def test_the_queue_has_an_end_for_each_model_by_itself(engines: dict[str, Engine]) -> None:
    async def work(worker: Worker) -> None:
        jobs = [worker.submit("a", [request(number, n=4, tokens=60) for number in range(3)]) for _ in range(2)]
        with pytest.raises(QueueFull):
            worker.submit("a", [request()])
        assert len(await ids_of(worker.submit("b", [request()]))) == 1
        assert await worker.call(lambda: 1) == [1]
        for job in jobs:
            assert len(await ids_of(job)) == 12
        await rest(worker)
        assert len(await ids_of(worker.submit("a", [request()]))) == 1

    with_worker(engines, work, max_queue=2)


def test_a_large_job_takes_turns_with_a_small_one(engines: dict[str, Engine]) -> None:
    async def work(worker: Worker) -> None:
        large = worker.submit("a", [request(number, tokens=12) for number in range(200)])
        await anext(aiter(large))
        assert len(await ids_of(worker.submit("a", [request(7)]))) == 1
        assert large.fed < 60
        large.cancel()
        await rest(worker)
        assert worker._queued == {"a": 0, "b": 0}

    with_worker(engines, work)


def test_calls_that_have_begun_are_not_refused_half_way(engines: dict[str, Engine]) -> None:
    async def work(worker: Worker) -> None:
        many = asyncio.create_task(worker.call(*[partial(time.sleep, 0.002)] * 50, lambda: 7))
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFull):
            await worker.call(lambda: 1)
        assert len(await ids_of(worker.submit("a", [request()]))) == 1
        assert (await many)[-1] == 7

    with_worker(engines, work, max_queue=1)


def test_calls_are_answered_between_steps(engines: dict[str, Engine]) -> None:
    def bad() -> int:
        raise ValueError("no")

    async def work(worker: Worker) -> None:
        job = worker.submit("a", [request(n=4, tokens=100)])
        assert await worker.call(lambda: 41 + 1, lambda: 7) == [42, 7]
        with pytest.raises(ValueError, match="no"):
            await worker.call(bad)
        assert job._unfinished == 4
        job.cancel()

    with_worker(engines, work)


def test_whoever_waits_at_the_end_is_told(engines: dict[str, Engine]) -> None:
    async def work(worker: Worker) -> None:
        jobs = [worker.submit("a", [request(number, n=3, tokens=140)]) for number in range(4)]
        await anext(aiter(jobs[0]))
        await asyncio.to_thread(worker.stop)
        for job in jobs:
            with pytest.raises(WorkerStopped):
                await ids_of(job)
        with pytest.raises(WorkerStopped):
            worker.submit("a", [request()])

    with_worker(engines, work)
