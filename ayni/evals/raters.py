"""Who says which of two answers is better: a plug-in judge, a reward model, a model behind an endpoint, people (paper 3.4.2).

A grade is one of the paper's seven points in favour of model a: 3 a much better, 2 better, 1 slightly, 0 about the same, ... -3.
Who sees two answers beside each other is asked in both orders; who scores each answer alone sees no order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ayni import telemetry
from ayni.engine.answers import encoded_answer
from ayni.evals.dialogues import dialogue
from ayni.evals.endpoint import Endpoint
from ayni.evals.judge_prompts import GRADE, JudgePrompt
from ayni.evals.judging import Judge
from ayni.evals.memory import Memory, key_of
from ayni.scoring.reward import RewardModel, score_answers
from ayni.text.judgements import STEPS
from ayni.text.native import Message
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import Tokenizer

PER_SAVE = 128  # answers scored between two saves
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """What models a and b replied to one prompt row, turn by turn. `a_first`: the side that is shown first, drawn by the seed."""

    row: Row
    a: str
    b: str
    replies_a: tuple[str, ...]
    replies_b: tuple[str, ...]
    a_first: bool = True

    @property
    def equal(self) -> bool:
        return [text.strip() for text in self.replies_a] == [text.strip() for text in self.replies_b]


@dataclass(frozen=True)
class Opinion:
    """One rater on one pair. `grades`: two, with a shown first and with b shown first; or one, where no order was seen.

    None: the reply was no verdict. `replies`: what an endpoint said, in the same order.
    """

    grades: tuple[int | None, ...]
    replies: tuple[str, ...] = ()

    @property
    def grade(self) -> int | None:
        """None if any reply was no verdict; 0 if the better side changes with the order; else the nearer of both to a tie."""
        known = [grade for grade in self.grades if grade is not None]
        if len(known) < len(self.grades):
            return None
        if len({_sign(grade) for grade in known}) > 1:
            return 0
        return min(known, key=abs)


class Rater(Protocol):
    @property
    def name(self) -> str: ...

    def rate(self, pairs: Sequence[Pair]) -> list[Opinion | None]:
        """One opinion a pair, in order; None for a pair that this rater was not asked about."""
        ...


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


@dataclass(frozen=True)
class ByPlugin:
    """The higher utility wins, equal ones tie. Of a dialogue the last reply is judged, in sight of those before."""

    name: str
    judge: Judge

    def rate(self, pairs: Sequence[Pair]) -> list[Opinion | None]:
        worth: dict[str, float] = {}
        for pair in pairs:
            for replies in (pair.replies_a, pair.replies_b):
                key = key_of([pair.row["id"], replies])
                if key not in worth:
                    before = {**pair.row, "messages": dialogue(pair.row, replies)[:-1]}
                    worth[key] = self.judge.judge(before, [replies[-1]])[0].utility
        return [
            Opinion((_sign(worth[key_of([p.row["id"], p.replies_a])] - worth[key_of([p.row["id"], p.replies_b])]),))
            for p in pairs
        ]


@dataclass(frozen=True)
class ByReward:
    """sigma(r_a - r_b) as a probability that a is better; |r_a - r_b| <= band is a tie.

    Beyond the band the grade is read as AlpacaEval's judgements are: 1, 2 from 0.8, 3 from 0.95.
    """

    name: str
    model: RewardModel
    tokenizer: Tokenizer
    row_len: int
    band: float
    memory: Memory

    def rate(self, pairs: Sequence[Pair]) -> list[Opinion | None]:
        asked: dict[str, list[Message]] = {}
        for pair in pairs:
            for replies in (pair.replies_a, pair.replies_b):
                asked.setdefault(_key(pair.row, replies), dialogue(pair.row, replies))
        keys = list(asked)
        with telemetry.progress(self.name, len(keys), "answers scored") as bar:
            for start in range(0, len(keys), PER_SAVE):
                chunk = keys[start : start + PER_SAVE]
                if not all(key in self.memory.known for key in chunk):
                    answers = [
                        encoded_answer(self.tokenizer, asked[key][:-1], str(asked[key][-1]["content"])) for key in chunk
                    ]
                    self.memory.add(dict(zip(chunk, score_answers(self.model, answers, self.row_len).tolist())))
                bar.advance(len(chunk))
        score = self.memory.known
        return [
            Opinion((grade_of(score[_key(p.row, p.replies_a)] - score[_key(p.row, p.replies_b)], self.band),))
            for p in pairs
        ]


def grade_of(ahead: float, band: float) -> int:
    if abs(ahead) <= band:
        return 0
    probability = 1 / (1 + math.exp(-min(abs(ahead), 50.0)))
    return _sign(ahead) * max(1, sum(probability >= step for step in STEPS))


def _key(row: Row, replies: Sequence[str]) -> str:
    return key_of(dialogue(row, replies))


@dataclass(frozen=True)
class ByEndpoint:
    """A model behind OpenAI's chat API, asked about every pair twice: once with each side first."""

    name: str
    endpoint: Endpoint
    prompts: Mapping[str, JudgePrompt]  # by prompt_kind

    def rate(self, pairs: Sequence[Pair]) -> list[Opinion | None]:
        asked: list[list[Message]] = []
        for pair in pairs:
            for a_first in (pair.a_first, not pair.a_first):
                first, second = (pair.replies_a, pair.replies_b) if a_first else (pair.replies_b, pair.replies_a)
                prompt = self.prompts[pair.row["prompt_kind"]]
                asked.append(
                    prompt.messages(spoken(pair.row["messages"]), *(told(pair.row, side) for side in (first, second)))
                )
        replies = self.endpoint.answers(asked)
        opinions: list[Opinion | None] = []
        for number, pair in enumerate(pairs):
            both = replies[2 * number : 2 * number + 2]
            with_a, with_b = both if pair.a_first else both[::-1]
            prompt = self.prompts[pair.row["prompt_kind"]]
            for_a, for_b = prompt.grade(with_a), prompt.grade(with_b)
            opinions.append(Opinion((for_a, None if for_b is None else -for_b), (with_a, with_b)))
        return opinions


def spoken(messages: Sequence[Message]) -> str:
    """A dialogue as a judge reads it; a single turn is its text alone."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{str(message['role']).capitalize()}: {message['content']}" for message in messages)


def told(row: Row, replies: Sequence[str]) -> str:
    """One side of a pair: the answer, or the dialogue from the first answer on."""
    return spoken(dialogue(row, replies)[len(row["messages"]) :])


@dataclass(frozen=True)
class ByPerson:
    """One annotator of a file in the preferences' format: pairs are found by their dialogue and both answers' words.

    Strength 0, "negligibly better or unsure", is about the same. The file does not say who was shown first.
    """

    name: str
    said: Mapping[str, Mapping[str, int]] = field(repr=False)  # key of the pair -> {chosen words: strength}

    def rate(self, pairs: Sequence[Pair]) -> list[Opinion | None]:
        found: list[Opinion | None] = []
        for pair in pairs:
            words = {
                side: _words(pair.row, replies) for side, replies in (("a", pair.replies_a), ("b", pair.replies_b))
            }
            judged = self.said.get(_pair_key(pair.row["messages"], words["a"], words["b"]))
            if judged is None:
                found.append(None)
                continue
            [(chosen, strength)] = judged.items()
            found.append(Opinion((strength if chosen == words["a"] else -strength,)))
        return found


def people(path: Path) -> list[ByPerson]:
    """A rater for each `annotator` of the file. ValueError where one judged the same pair twice."""
    said: dict[str, dict[str, dict[str, int]]] = {}
    for number, row in enumerate(read_preferences(path), 1):
        annotator = str(row["annotator"])
        chosen, rejected = (_text(row[side]) for side in ("chosen", "rejected"))
        key = _pair_key(row["prompt"], chosen, rejected)
        of = said.setdefault(annotator, {})
        if key in of:
            raise ValueError(f"{path}, preference {number}: {annotator} judged this pair before; drop one of the two")
        strength = row["strength"]
        of[key] = {chosen: 1 if strength is None else min(int(strength), GRADE)}
    return [ByPerson(f"people:{annotator}", of) for annotator, of in sorted(said.items())]


def _text(messages: Sequence[Message]) -> str:
    return key_of([[m["role"], str(m["content"]).strip()] for m in messages])


def _words(row: Row, replies: Sequence[str]) -> str:
    return _text(dialogue(row, replies)[len(row["messages"]) :])


def _pair_key(prompt: Sequence[Message], *sides: str) -> str:
    return key_of([_text(prompt), *sorted(sides)])
