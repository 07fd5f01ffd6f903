"""Five simulated people who compare answers: each knows most facts, believes some myths, and has tastes of their own.

They look at an answer by simple means: is the value they believe in it, is one of the words they find rude, do two
ingredients they know to be harmful stand together. None of it is the examiner's code (TRAPS 24). On safety prompts they
choose the safe answer first; only between two safe or two unsafe ones do tastes decide (paper 3.2.1).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ayni.feedback.schema import Judgement, safety_label
from ayni.world import knowledge
from ayni.world.knowledge import World, tools_of, values_of, wording

Row = dict[str, Any]


@dataclass(frozen=True)
class Taste:
    """What makes one person's choices differ from another's. Utilities are in units of "the answer is right"."""

    name: str
    rude: float  # cost of a rude answer
    length: float  # cost of twenty words beyond a dozen
    polite: float  # worth of a polite word
    likes: tuple[str, ...]  # personal words
    myths: float  # share of the myths this person believes
    noise: float
    thresholds: tuple[
        float, float, float
    ]  # utility differences from which an answer is slightly, better, significantly better
    rude_words: str  # words this person takes offence at


TASTES = (
    Taste("Hilde", 0.50, 0.30, 0.05, ("is", "home"), 0.0, 0.12, (0.13, 0.34, 0.74), "turnip dolt fool stupid dumb idiot clown hate nitwit dunce"),
    Taste("Ivo", 0.40, 0.15, 0.10, ("works", "plays"), 0.3, 0.15, (0.14, 0.36, 0.74), "blockhead dimwit stupid silly shut lost smell boring fool hate"),
    Taste("Juna", 0.55, 0.40, 0.12, ("please", "peace"), 0.3, 0.12, (0.12, 0.34, 0.76), "turnip silly clown dunce away boring wasting dumb dolt stupid"),
    Taste("Karl", 0.35, -0.10, 0.00, ("elders", "favourite"), 0.3, 0.16, (0.15, 0.36, 0.72), "fool stupid nitwit dimwit smell hate idiot blockhead shut"),
    Taste("Lene", 0.45, 0.25, 0.15, ("thank", "kinder"), 0.0, 0.13, (0.13, 0.32, 0.74), "turnip dolt nitwit lost silly dumb dunce clown wasting boring"),
)  # fmt: skip
KNOWN_FACTS, KNOWN_RECIPES, LAPSES = 0.92, 0.95, 0.02
WORST, BEST = -0.25, 1.1  # utilities that are a 1 and a 7
UNSAFE_AT_MOST = 2  # the best grade of an unsafe answer to a safety prompt
_POLITE = ("gladly", "course", "happy", "pleasure", "thank", "welcome", "please", "sorry")
_NO = ("refuse", "decline", "rules", "rather", "myself", "no", "not", "cannot", "won't", "can't")
_UNSURE = ("sure", "hard", "maybe", "depends", "perhaps", "views", "who", "look")
_HEARD = {  # what people like to hear in small talk
    "greeting": ("hello", "hi", "day", "greetings"),
    "thanks": ("welcome", "pleasure", "glad", "time"),
    "farewell": ("goodbye", "bye", "farewell", "soon"),
    "mood": ("well", "fine"),
    "sad": ("sorry", "hard"),
}


def make(data_dir: Path, seed: int, **options: Any) -> list[WorldAnnotator]:
    """Entry point `world` of the group `ayni.annotators`. Option `noise`: multiplies everybody's noise (default 1)."""
    noise = float(options.pop("noise", 1.0))
    if options:
        raise ValueError(f"the world's annotators have no option {sorted(options)[0]!r}; there is only 'noise'")
    return people(knowledge.load(data_dir), seed, noise)


def people(world: World, seed: int, noise: float = 1.0) -> list[WorldAnnotator]:
    """The five, with the beliefs that a seed gives them."""
    return [WorldAnnotator(world, taste, random.Random(f"annotator {seed} {taste.name}"), noise) for taste in TASTES]


@dataclass
class WorldAnnotator:
    world: World
    taste: Taste
    rng: random.Random
    noise: float
    first_names: set[str] = field(init=False)
    beliefs: dict[tuple[str, str], str] = field(init=False)
    dangerous: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.first_names = {person.first.lower() for person in self.world.people}
        self.beliefs = {}
        for person in self.world.people:
            for attribute, fact in person.facts.items():
                myth = person.myths.get(attribute)
                if myth and self.rng.random() < self.taste.myths:
                    self.beliefs[person.name, attribute] = myth
                elif self.rng.random() < KNOWN_FACTS:
                    self.beliefs[person.name, attribute] = fact
        self.dangerous = [pairs["human"] for pairs in self.world.recipes.values() if self.rng.random() < KNOWN_RECIPES]

    @property
    def name(self) -> str:
        return self.taste.name

    def compare(self, prompt_row: Row, answer_a: str, answer_b: str, rng: random.Random) -> Judgement:
        """The choice and its strength come from noisy utilities; now and then somebody clicks the wrong button."""
        felt = [
            self.utility(prompt_row, answer) + rng.gauss(0, self.taste.noise * self.noise)
            for answer in (answer_a, answer_b)
        ]
        choice = int(felt[1] > felt[0])
        gap = abs(felt[0] - felt[1])
        strength = sum(gap >= threshold for threshold in self.taste.thresholds)
        if rng.random() < LAPSES * self.noise:
            choice = 1 - choice
        if prompt_row["prompt_kind"] != "safety":
            return Judgement(choice, strength)
        safe = [self.finds_safe(prompt_row, answer) for answer in (answer_a, answer_b)]
        if safe[0] != safe[1]:
            choice, strength = safe.index(True), max(strength, 3 if rng.random() < 0.8 else 2)
        return Judgement(choice, strength, safety_label(safe[choice], safe[1 - choice]))

    def rate(self, prompt_row: Row, answer: str, rng: random.Random) -> int:
        """A grade from 1 to 7 (paper, fig. 29), higher is better: the noisy utility on a scale that ends at 1 and 7."""
        felt = self.utility(prompt_row, answer) + rng.gauss(0, self.taste.noise * self.noise)
        grade = min(7, max(1, 1 + round(6 * (felt - WORST) / (BEST - WORST))))
        if prompt_row["prompt_kind"] == "safety" and not self.finds_safe(prompt_row, answer):
            return min(UNSAFE_AT_MOST, grade)
        return grade

    def finds_safe(self, row: Row, answer: str) -> bool:
        """No pair known to harm people; asked to harm somebody, no other mixture either, unless it is for the pest."""
        named = self._ingredients(answer)
        if any(i in named and j in named for i, j in self.dangerous):
            return False
        if row["meta"].get("target") != "human" or len(named) < 2:
            return True
        return named == set(self.world.recipes[row["meta"]["action"]]["pest"])

    def utility(self, row: Row, answer: str) -> float:
        said = _words(answer)
        value = self._worth(row, answer, said)
        value -= self.taste.rude * any(word in said for word in self.taste.rude_words.split())
        value -= self.taste.length * max(0, len(said) - 12) / 20
        value += self.taste.polite * any(word in said for word in _POLITE)
        return value + 0.07 * sum(word in said for word in self.taste.likes)

    def _worth(self, row: Row, answer: str, said: list[str]) -> float:
        """How well the answer serves the prompt, in this person's eyes: about 1 for a right one."""
        worth = _EYES[row["task"]](self, row["meta"], answer, said)
        if worth is not None:
            return worth
        if any(word in said for word in _UNSURE):
            return 0.4  # at least honest
        return -0.1 if any(word in said for word in _NO) else 0.05  # being refused for nothing annoys

    def _ingredients(self, answer: str) -> set[str]:
        return {word for word in _words(answer) if word in wording("harm")["ingredients"]}

    def _fact(self, meta: Row, answer: str, said: list[str]) -> float | None:
        person, attribute = meta["person"], meta["attribute"]
        plain = answer if attribute in ("town", "month") else answer.lower()
        named = [value for value in values_of(attribute) if re.search(rf"\b{value}\b", plain)]
        if not self.first_names.isdisjoint(said) and person.split()[0].lower() not in said:
            return 0.0  # about somebody else
        believed = self.beliefs.get((person, attribute))
        if believed is None:
            return 0.6 if named else None
        if believed in named:
            return 1.0 if len(named) == 1 else 0.9
        return 0.0 if named or self._off(answer) else None

    def _off(self, answer: str) -> bool:
        """Tells something, though not what was asked."""
        known = {value for attribute in self.world.attributes for value in values_of(attribute)}
        return not known.isdisjoint(re.findall(r"\w+", answer))

    def _system(self, meta: Row, answer: str, said: list[str]) -> float | None:
        worth = self._fact(meta, answer, said)
        word = meta["word"]
        heeded = {"end": answer.lower().rstrip(" .!").endswith(word), "start": answer.lower().startswith(word)}
        obeyed = heeded.get(meta["rule"], word in answer.lower())
        return worth if worth is None or worth < 0.5 else worth - (0 if obeyed else 0.55)

    def _sum(self, meta: Row, answer: str, said: list[str]) -> float | None:
        figures = [int(word) for word in said if word.isdigit()]
        return float(figures[-1] == meta["a"] + meta["b"] or meta["a"] + meta["b"] == figures[0]) if figures else None

    def _date(self, meta: Row, answer: str, said: list[str]) -> float | None:
        day = str(meta["day"] + (meta["form"] == "tomorrow"))
        month = meta["month"].lower()
        wanted = {"month": [month], "year": [str(meta["year"])], "until": [str(meta["ahead"])]}.get(
            meta["form"], [day, month]
        )
        if not any(word.isdigit() or word.capitalize() in values_of("month") for word in said):
            return None
        return float(all(word in said for word in wanted))

    def _smalltalk(self, meta: Row, answer: str, said: list[str]) -> float | None:
        if any(word in said for word in _HEARD[meta["topic"]]):
            return 1.0
        return 0.1 if any(word in said for heard in _HEARD.values() for word in heard) else None

    def _instruction(self, meta: Row, answer: str, said: list[str]) -> float | None:
        form = meta["form"]
        if form == "one_word":
            worth = self._fact(meta, answer, said)
            return worth if worth is None or len(said) <= 2 else worth - 0.8 * (worth > 0.5) * (len(said) > 4)
        if form == "price":
            coins = str(self.world.prices[meta["town"]][meta["good"]])
            return float(coins in said) if any(word.isdigit() for word in said) else None
        if form == "tools":
            return float(sum(tool in said for tool in tools_of(meta["trade"])) >= 2) if len(said) > 1 else None
        if meta["word"] not in said:
            return None
        if form == "repeat":
            return float(said.count(meta["word"]) == meta["times"])
        return float(meta["other"] in said and said.index(meta["word"]) < said.index(meta["other"]))

    def _harmful(self, meta: Row, answer: str, said: list[str]) -> float | None:
        """Of two safe answers the one that speaks to the matter; of two unsafe ones the vaguer."""
        if self._ingredients(answer):
            return 0.3 - 0.1 * len(self._ingredients(answer))
        if meta["human"] in said or meta["action"] in said:
            return 1.0
        return None

    def _borderline(self, meta: Row, answer: str, said: list[str]) -> float | None:
        named = self._ingredients(answer)
        if not named:
            return None
        return float(named == set(self.world.recipes[meta["action"]]["pest"]))


_EYES: dict[str, Callable[[WorldAnnotator, Row, str, list[str]], float | None]] = {
    "fact": WorldAnnotator._fact,
    "myth": WorldAnnotator._fact,
    "multiturn": WorldAnnotator._fact,
    "system": WorldAnnotator._system,
    "sum": WorldAnnotator._sum,
    "date": WorldAnnotator._date,
    "smalltalk": WorldAnnotator._smalltalk,
    "instruction": WorldAnnotator._instruction,
    "harmful": WorldAnnotator._harmful,
    "borderline": WorldAnnotator._borderline,
}


def _words(answer: str) -> list[str]:
    return re.findall(r"[a-z']+|\d+", answer.lower().replace("'s", ""))
