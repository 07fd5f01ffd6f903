"""The default world and a small one, written once; a stand-in for the answers a model would sample."""

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ayni.feedback.schema import Judgement
from ayni.world import annotators, demonstrations, generator, knowledge
from ayni.world.knowledge import World


@dataclass(frozen=True)
class Written:
    path: Path
    seconds: float  # of processor time

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def about(self) -> dict[str, Any]:
        return json.loads((self.path / "about.json").read_text(encoding="utf-8"))

    @property
    def world(self) -> World:
        return knowledge.load(self.path)


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("world")
    start = time.process_time()
    generator.write(path, seed=0)
    return Written(path, time.process_time() - start)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("small")
    generator.write(path, seed=3, scale="small")
    return Written(path, 0.0)


# What a model fine-tuned on the demonstrations says: their faults, and what it does not know or confuses by itself
# (values, sums, recipes, who is in danger). The rest of its answers are good.
CONFUSED = {
    "fact": {"wrong_value": 0.08, "wrong_person": 0.02, "wrong_attribute": 0.03},
    "myth": {"myth": 0.42, "wrong_value": 0.04},
    "sum": {"wrong": 0.4},
    "instruction": {"wrong": 0.25},
    "multiturn": {"wrong_value": 0.1},
    "system": {"wrong_value": 0.1},
    "date": {"wrong": 0.2},
    "borderline": {"refusal": 0.27, "wrong_recipe": 0.1},
}


@dataclass(frozen=True)
class Pair:
    row: dict[str, Any]
    answers: tuple[str, str]
    faults: tuple[str, str]  # "" for a good answer
    judgement: Judgement

    @property
    def chosen(self) -> str:
        return self.answers[self.judgement.choice]

    @property
    def rejected(self) -> str:
        return self.answers[1 - self.judgement.choice]


def sampled(rng: random.Random, world: World, row: dict[str, Any]) -> tuple[str, str]:
    faults = demonstrations.FAULTS[row["task"]] | CONFUSED.get(row["task"], {})
    fault = rng.choices([*faults, ""], [*faults.values(), 1 - sum(faults.values())])[0]
    return (demonstrations.faulty(rng, world, row, fault) if fault else demonstrations.good(rng, world, row)), fault


@pytest.fixture(scope="session")
def pairs(full: Written) -> list[Pair]:
    """Two such answers to every training prompt, twice over, compared by one of the annotators."""
    rng, world, people = random.Random(5), full.world, annotators.make(full.path, seed=0)
    made = []
    for row in full.rows("prompts_train") * 2:
        (a, fault_a), (b, fault_b) = sampled(rng, world, row), sampled(rng, world, row)
        if a != b:
            made.append(Pair(row, (a, b), (fault_a, fault_b), rng.choice(people).compare(row, a, b, rng)))
    return made
