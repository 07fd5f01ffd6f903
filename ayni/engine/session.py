"""Requests that come and go while decoding runs: what a server needs, where `Engine.generate` knows them all beforehand."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from ayni.engine.batch import Batch, eval_mode
from ayni.engine.engine import Engine
from ayni.engine.request import Finish, Request, Top

PREFILL_TOKENS = 1024  # padded prompt tokens of one step: how long newcomers may hold up the answers that run


class Token(NamedTuple):
    """A new token of one sample; `finish` is set on the sample's last one."""

    request: int
    sample: int
    id: int
    logprob: float
    top: Top | None
    finish: Finish | None


class Session:
    """Admits waiting samples first come, first served, whenever a slot is free; a step prefills some or decodes all, in turn.

    Keeps nothing of a request that ended or was cancelled; while idle it holds no cache. For one thread only, and not to
    be used further once `step` has raised (memory that ran out, say): its rows may be half-written.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.numbers = itertools.count()
        self.batch = Batch(engine, engine.max_rows, PREFILL_TOKENS, take_turns=True)

    @property
    def running(self) -> int:
        """Samples in slots."""
        return len(self.batch.scheduler.running)

    @property
    def waiting(self) -> int:
        """Samples that have no slot yet."""
        return self.batch.scheduler.waiting_samples

    @property
    def idle(self) -> bool:
        return self.batch.scheduler.done

    def add(self, request: Request) -> int:
        """The request's number, by which its tokens come; ValueError if it cannot be served."""
        self.engine.check(request)
        number = next(self.numbers)
        self.batch.add(number, request)
        return number

    def cancel(self, number: int) -> None:
        """Its running samples leave their slots, its waiting ones the queue; nothing happens if it is not there."""
        self.batch.cancel(number)
        self.batch.trim()

    def step(self) -> list[Token]:
        """One token for each sample admitted now, or else for every running one; [] when idle."""
        if self.idle:
            return []
        with eval_mode(self.engine.model):
            step = self.batch.advance()
        tokens = [
            Token(*sample, id, logprob, step.top.get(row), step.finish(row))
            for row, (sample, id, logprob) in enumerate(zip(step.samples, step.ids.tolist(), step.logprobs.tolist()))
        ]
        if ended := step.ended:
            self.batch.release(ended)
            self.batch.trim()
        return tokens
