"""A stand-in for a model: a function from prompt to continuation, which remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ayni.config_measuring import SuiteSettings
from ayni.evals.answering import Continue
from ayni.text.native import Message


class Scripted:
    """`says`: (prompt) -> continuation, cut at the first stop string as `Answering` cuts it."""

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says = says
        self.asked: list[Continue] = []

    def continuations(self, asked: Sequence[Continue]) -> list[str]:
        self.asked += asked
        out = []
        for each in asked:
            text = self.says(each.prompt)
            for stop in each.until:
                text = text.split(stop)[0]
            out.append(text)
        return out

    def dialogue(self, messages: Sequence[Message], is_open: bool = True) -> str:
        return "".join(f"[{message['role']}] {message['content']}\n" for message in messages) + "[assistant]"


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture
def settings() -> Callable[..., SuiteSettings]:
    return lambda suite, **values: SuiteSettings(suite=suite, **values)
