"""The one thread that computes: it steps the sessions of all models in turn and hands tokens to the event loop.

    loop:  take in (new jobs, cancelled jobs, calls) -> one call -> feed and step every session that has work -> deliver

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
        self.fed = 0  # requests that the session has
        self.fed_choices = 0
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
        self.waiting = 0  # samples without one
        self._engines = engines
        self._sessions = {name: Session(engine) for name, engine in engines.items()}
        self._requests: dict[str, dict[int, _Running]] = {name: {} for name in engines}
        self._queues: dict[str, deque[Job]] = {name: deque() for name in engines}  # jobs not wholly fed
        self._queued = dict.fromkeys(engines, 0)  # their number, those in the inbox included
        self._callers = 0
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
        """Hands a job over, from the event loop. QueueFull if as many jobs of the model wait for slots as may."""
        job = Job(self, model, requests)
        with self._wake:
            self._admit(self._queued[model])
            self._queued[model] += 1
            self._inbox.append(job)
            self._wake.notify()
        return job

    def cancel(self, job: Job) -> None:
        with self._wake:
            self._cancelled.append(job)
            self._wake.notify()

    async def call(self, *functions: Callable[[], T]) -> list[T]:
        """The results of what is short but must not compute beside the sessions: one of them between two steps.

        Admitted once for all of them, so that what has begun is not refused half-way.
        """
        with self._wake:
            self._admit(self._callers)
            self._callers += 1
        try:
            return [await self._one(function) for function in functions]
        finally:
            with self._wake:
                self._callers -= 1

    async def _one(self, function: Callable[[], T]) -> T:
        call = _Call(function, asyncio.get_running_loop())
        with self._wake:
            if not self.alive:
                raise WorkerStopped
            self._calls.append(call)
            self._wake.notify()
        try:
            return await call.result
        finally:
            call.result.cancel()

    def _admit(self, queued: int) -> None:
        if not self.alive:
            raise WorkerStopped
        if queued >= self.max_queue:
            raise QueueFull

    def _run(self) -> None:
        try:
            while self._take_in():
                self._one_call()
                for name in self._sessions:
                    self._feed(name)
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
            self._enqueue(job)
        for job in cancelled:
            self._forget(job)
        return not self._stopping

    def _busy(self) -> bool:
        return any(self._queues.values()) or not all(session.idle for session in self._sessions.values())

    def _count(self) -> None:
        sessions = self._sessions.values()
        self.running = sum(session.running for session in sessions)
        queued = [*self._inbox, *(job for queue in self._queues.values() for job in queue)]
        unfed = sum(job.choices - job.fed_choices for job in queued)
        self.waiting = unfed + sum(session.waiting for session in sessions)

    def _enqueue(self, job: Job) -> None:
        self._queues[job.model].append(job)
        try:
            for request in job.requests:
                self._engines[job.model].check(request)
        except ValueError as error:
            self._forget(job)
            job.deliver(error)

    def _feed(self, name: str) -> None:
        """Free slots go to the jobs in turn, a request at a time: a thousand prompts of one job hold up no other for long."""
        queue, session = self._queues[name], self._sessions[name]
        free = self._engines[name].max_rows - session.running - session.waiting
        while queue and free > 0:
            job = queue.popleft()
            request = job.requests[job.fed]
            self._requests[name][session.add(request)] = _Running(job, job.fed_choices, request.n)
            job.fed += 1
            job.fed_choices += request.n
            free -= request.n
            if job.fed < len(job.requests):
                queue.append(job)
            else:
                self._dequeued(name)

    def _dequeued(self, name: str) -> None:
        with self._wake:
            self._queued[name] -= 1

    def _forget(self, job: Job) -> None:
        if job in self._queues[job.model]:
            self._queues[job.model].remove(job)
            self._dequeued(job.model)
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
        failed = {running.job for running in self._requests[name].values()}
        self._requests[name].clear()
        self._sessions[name] = Session(self._engines[name])
        for job in failed:
            self._forget(job)
            job.deliver(error)

    def _fail_all(self, error: Exception) -> None:
        with self._wake:
            inbox, calls = list(self._inbox), list(self._calls)
            self._inbox.clear()
            self._calls.clear()
            self._queued = dict.fromkeys(self._queued, 0)
        queued = {job for queue in self._queues.values() for job in queue}
        for queue in self._queues.values():
            queue.clear()
        running = {running.job for requests in self._requests.values() for running in requests.values()}
        for requests in self._requests.values():
            requests.clear()
        for job in {*inbox, *queued, *running}:
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
