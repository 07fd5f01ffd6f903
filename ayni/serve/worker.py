"""The one thread that computes: it steps the sessions of all models in turn and hands tokens to the event loop.

    loop:  take in (new jobs, cancelled jobs, calls) -> one call -> one step of every session that has work -> deliver

It sleeps while there is nothing to do. What fails in a step fails the jobs of that model alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from ayni.engine.engine import Engine, Request
from ayni.engine.session import Session, Token

T = TypeVar("T")
log = logging.getLogger("ayni.serve")


class QueueFull(Exception):
    """As many samples wait as may."""


class WorkerStopped(Exception):
    """The server is shutting down, or its worker died."""


class Produced(NamedTuple):
    """A token for one of a job's choices; choice = request * n + sample."""

    choice: int
    id: int
    logprob: float
    top: list[tuple[int, float]] | None
    finish: Literal["stop", "length"] | None


class Job:
    """What one HTTP request asks of one model: some prompts, each with its n samples.

    Iterated on the event loop it gives the tokens in the batches in which they come; `cancel` frees its slots at once.
    """

    def __init__(self, worker: Worker, model: str, requests: Sequence[Request]) -> None:
        self.worker, self.model, self.requests = worker, model, requests
        self.choices = sum(request.n for request in requests)
        self._unfinished = self.choices
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[list[Produced] | BaseException] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[list[Produced]]:
        while self._unfinished:
            batch = await self._arrived.get()
            if isinstance(batch, BaseException):
                raise batch
            self._unfinished -= sum(token.finish is not None for token in batch)
            yield batch

    def cancel(self) -> None:
        if self._unfinished:
            self.worker.cancel(self)

    def deliver(self, batch: list[Produced] | BaseException) -> None:
        """From the worker's thread."""
        _post(self._loop, self._arrived.put_nowait, batch)


@dataclass
class _Running:
    """Where a session's request belongs."""

    job: Job
    first_choice: int
    unfinished: int  # samples


class Worker:
    def __init__(self, engines: Mapping[str, Engine], max_queue: int) -> None:
        self.max_queue = max_queue
        self.running = 0  # samples in slots, as of the last step
        self.waiting = 0  # samples without one, and calls
        self._engines = engines
        self._sessions = {name: Session(engine) for name, engine in engines.items()}
        self._requests: dict[str, dict[int, _Running]] = {name: {} for name in engines}
        self._inbox: deque[Job] = deque()
        self._cancelled: deque[Job] = deque()
        self._calls: deque[_Call] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ayni-worker", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Ends after the step under way; whoever still waits gets WorkerStopped."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def submit(self, model: str, requests: Sequence[Request]) -> Job:
        """Hands a job over, from the event loop. QueueFull unless it fits into the queue, or nothing waits at all."""
        job = Job(self, model, requests)
        with self._wake:
            self._admit(job.choices)
            self._inbox.append(job)
            self._wake.notify()
        return job

    def cancel(self, job: Job) -> None:
        with self._wake:
            self._cancelled.append(job)
            self._wake.notify()

    async def call(self, function: Callable[[], T]) -> T:
        """The result of something short that must not compute beside the sessions, computed between two steps."""
        call = _Call(function, asyncio.get_running_loop())
        with self._wake:
            self._admit(1)
            self._calls.append(call)
            self._wake.notify()
        try:
            return await call.result
        finally:
            call.result.cancel()

    def _admit(self, count: int) -> None:
        if not self.alive:
            raise WorkerStopped
        if self.waiting and self.waiting + count > self.max_queue:
            raise QueueFull
        self.waiting += count

    def _run(self) -> None:
        try:
            while self._take_in():
                self._one_call()
                for name in self._sessions:
                    self._step(name)
        except Exception as error:
            log.exception("the worker died")
            self._fail_all(error)
        finally:
            self._stopping = True
            self._fail_all(WorkerStopped())

    def _take_in(self) -> bool:
        """Sleeps until there is work; False to end."""
        with self._wake:
            self._count()
            while not (self._stopping or self._inbox or self._cancelled or self._calls or self._busy()):
                self._wake.wait()
            arrived, cancelled = list(self._inbox), list(self._cancelled)
            self._inbox.clear()
            self._cancelled.clear()
        for job in arrived:
            if job not in cancelled:
                self._add(job)
        for job in cancelled:
            self._forget(job)
        return not self._stopping

    def _busy(self) -> bool:
        return not all(session.idle for session in self._sessions.values())

    def _count(self) -> None:
        sessions = self._sessions.values()
        self.running = sum(session.running for session in sessions)
        queued = sum(job.choices for job in self._inbox) + len(self._calls)
        self.waiting = queued + sum(session.waiting for session in sessions)

    def _add(self, job: Job) -> None:
        try:
            first = 0
            for request in job.requests:
                number = self._sessions[job.model].add(request)
                self._requests[job.model][number] = _Running(job, first, request.n)
                first += request.n
        except Exception as error:
            self._forget(job)
            job.deliver(error)

    def _forget(self, job: Job) -> None:
        mine = self._requests[job.model]
        for number in [number for number, running in mine.items() if running.job is job]:
            self._sessions[job.model].cancel(number)
            del mine[number]

    def _one_call(self) -> None:
        """One between two steps: a long list of texts to score does not hold up those who wait for their next token."""
        with self._wake:
            call = self._calls.popleft() if self._calls else None
        if call is not None:
            call.run()

    def _step(self, name: str) -> None:
        if self._sessions[name].idle:
            return
        try:
            tokens = self._sessions[name].step()
        except Exception as error:
            log.exception("a step of model %s failed", name)
            self._restart(name, error)
            return
        for job, batch in self._by_job(name, tokens).items():
            job.deliver(batch)

    def _by_job(self, name: str, tokens: Sequence[Token]) -> dict[Job, list[Produced]]:
        requests = self._requests[name]
        batches: dict[Job, list[Produced]] = {}
        for token in tokens:
            running = requests[token.request]
            choice = running.first_choice + token.sample
            produced = Produced(choice, token.id, token.logprob, token.top, token.finish)
            batches.setdefault(running.job, []).append(produced)
            running.unfinished -= token.finish is not None
            if not running.unfinished:
                del requests[token.request]
        return batches

    def _restart(self, name: str, error: Exception) -> None:
        """A session that failed may hold anything: its jobs fail, and the next ones get a new one."""
        for job in {running.job for running in self._requests[name].values()}:
            job.deliver(error)
        self._requests[name].clear()
        self._sessions[name] = Session(self._engines[name])

    def _fail_all(self, error: Exception) -> None:
        with self._wake:
            inbox, calls = list(self._inbox), list(self._calls)
            self._inbox.clear()
            self._calls.clear()
        running = {running.job for requests in self._requests.values() for running in requests.values()}
        for requests in self._requests.values():
            requests.clear()
        for job in [*inbox, *running]:
            job.deliver(error)
        for call in calls:
            call.fail(error)
        self.running = self.waiting = 0


class _Call:
    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function, self.loop = function, loop
        self.result: asyncio.Future[Any] = loop.create_future()

    def run(self) -> None:
        if self.result.done():  # nobody waits for it any more
            return
        try:
            value = self.function()
        except Exception as error:
            self.fail(error)
        else:
            _post(self.loop, self._set, value)

    def fail(self, error: Exception) -> None:
        _post(self.loop, self._set_exception, error)

    def _set(self, value: Any) -> None:
        if not self.result.done():
            self.result.set_result(value)

    def _set_exception(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


def _post(loop: asyncio.AbstractEventLoop, function: Callable[[Any], object], value: Any) -> None:
    """A loop that has been closed has nobody left who waits."""
    try:
        loop.call_soon_threadsafe(function, value)
    except RuntimeError:
        log.debug("the event loop is closed; a result is dropped")
