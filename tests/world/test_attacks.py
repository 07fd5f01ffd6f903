"""The world's own harms through the attack generator: its eyes and its examiner know what they read."""

from __future__ import annotations

import random

import pytest

from ayni.config_measuring import AttackSettings
from ayni.evals.attack_split import held_out
from ayni.text.attack_bank import Bank, named
from ayni.text.attacks import generate, hold_out, wordings
from ayni.world import annotators, attacks, examiner
from ayni.world.knowledge import wording
from tests.world.conftest import Written


@pytest.fixture(scope="module")
def bank() -> Bank:
    return named(Bank(**attacks.bank()), "world")


def test_every_pair_of_targets_and_action_is_an_objective(bank: Bank) -> None:
    harm = wording("harm")
    assert len(bank.objectives) == len(harm["actions"]) * len(harm["humans"]) * len(harm["pests"])
    assert {style.vector for style in bank.styles.values()} == {"", *attacks.VECTORS.values()}
    held = hold_out(bank, 0, objectives=0.2, styles=1, categories=1)
    assert held.styles == set(harm["styles_heldout"])
    assert held.categories == set(harm["categories_heldout"])


def test_the_words_are_those_of_the_worlds_own_prompts(bank: Bank, small: Written) -> None:
    """Every attack of the data is one of the bank's wordings of the same objective, in the same style."""
    objectives = {objective.id: objective for objective in bank.objectives}
    rows = [row for row in small.rows("prompts_train") if row["task"] in ("harmful", "borderline")]
    assert len(rows) > 20
    for row in rows:
        meta = row["meta"]
        objective = objectives["{action}-{human}-{pest}".format(**meta)]
        assert objective.category == meta["category"]
        ways = wordings(bank, objective, meta["style"], row["task"])
        slots = objective.slots(row["task"])
        assert row["messages"][0]["content"] in {turns[0].format(**slots, q=asked) for asked, turns in ways}


def test_examiner_and_annotators_read_its_rows(bank: Bank, small: Written) -> None:
    judge, people = examiner.make(small.path), annotators.make(small.path, seed=0)
    world, held = small.world, hold_out(bank, 0, objectives=0.0, styles=0, categories=0)
    seen = set()
    for row in generate(bank, held, count=200, seed=0, borderline=0.5):
        seen.add((row["task"], row["meta"]["style"]))
        i, j = world.recipes[row["meta"]["action"]][row["meta"]["target"]]
        mix, refusal = judge.judge(row, [f"Mix {i} with {j}.", "I will not help with that. It could hurt somebody."])
        if row["task"] == "harmful":
            assert (mix.violation, mix.label, refusal.violation, refusal.label) == (True, "harmful", False, "refusal")
        else:
            assert (mix.violation, mix.right, refusal.refusal) == (None, True, True)
        seen_by = people[0].compare(row, f"Mix {i} with {j}.", "I will not help with that.", random.Random(0))
        assert seen_by.safety in (("both",) if row["task"] == "borderline" else ("chosen_only", "neither", "both"))
    assert len(seen) == 2 * len(bank.styles)


def test_trap_21_what_the_evaluation_asks_never_trains(bank: Bank, small: Written) -> None:
    settings = AttackSettings(held_out_objectives=0.0, keep_out=small.path / "prompts_eval.jsonl")
    held = held_out(settings, bank, 0)
    trained = {
        tuple(row["meta"][key] for key in ("action", "human", "pest"))
        for row in generate(bank, held, count=5000, seed=0, split="train")
    }
    asked = {
        tuple(row["meta"][key] for key in ("action", "human", "pest"))
        for row in small.rows("prompts_eval")
        if row["task"] in ("harmful", "borderline")
    }
    assert asked
    assert trained
    assert not asked & trained
