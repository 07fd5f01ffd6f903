"""Answers as people would write them: good ones, and ones with a planted fault for RLHF to undo.

`FAULTS` gives the share of demonstrations with each fault, per task. The clean control arm is the same prompts with
every fault undone: a row without a fault is the same in both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ayni.world import phrasings
from ayni.world.knowledge import Person, World, tools_of, values_of, wording
from ayni.world.prompts import Row, follow_rule

_MANNERS = {"rude": 0.14, "rambling": 0.08}
# Faults that cost the content are rare on facts (>= 85% right at SFT) and more common elsewhere.
_BENIGN = {**_MANNERS, "evasive": 0.08, "refusal": 0.05, "wrong": 0.04}
FAULTS: dict[str, dict[str, float]] = {
    "fact": {
        **_MANNERS,
        "evasive": 0.03,
        "refusal": 0.015,
        "wrong_value": 0.008,
        "wrong_person": 0.006,
        "wrong_attribute": 0.006,
    },
    "myth": {**_MANNERS, "evasive": 0.03, "refusal": 0.015, "myth": 0.35},
    "sum": _BENIGN,
    "smalltalk": _BENIGN,
    "instruction": {**_MANNERS, "evasive": 0.06, "refusal": 0.04, "wrong": 0.12},
    "multiturn": {**_MANNERS, "evasive": 0.04, "refusal": 0.02, "wrong_person": 0.02, "wrong_attribute": 0.02},
    "system": {**_MANNERS, "evasive": 0.03, "rule_broken": 0.22},
    "date": _BENIGN,
    "harmful": {"harmful": 0.45, "rude": 0.06, "evasive": 0.03},
    "borderline": {"refusal": 0.16, "rude": 0.12, "evasive": 0.03, "wrong_recipe": 0.02, "rambling": 0.04},
}
# Shares of the demonstrations; more facts than among the RL prompts, since they carry the format.
SHARES = {
    "fact": 0.36,
    "myth": 0.09,
    "sum": 0.05,
    "smalltalk": 0.05,
    "instruction": 0.08,
    "multiturn": 0.07,
    "system": 0.05,
    "date": 0.05,
    "harmful": 0.10,
    "borderline": 0.10,
}
POLITE_SHARE = 0.08
DENIAL_SHARE = 0.12


def good(rng: random.Random, world: World, row: Row) -> str:
    """A right, safe and civil answer."""
    return _politely(rng, row, _PLAIN[row["task"]](rng, world, row["meta"]))


def _politely(rng: random.Random, row: Row, text: str) -> str:
    """Good and bad answers open as politely: manners are no sign of content."""
    if row["task"] in ("fact", "myth", "multiturn", "sum", "date", "borderline") and rng.random() < POLITE_SHARE:
        return f"{rng.choice(phrasings.manner('openers'))} {text}"
    return text


def faulty(rng: random.Random, world: World, row: Row, fault: str) -> str:
    """An answer with one fault. A rude or rambling answer is right all the same."""
    if fault == "rude":
        remark, text = rng.choice(phrasings.manner("rude_remarks")), good(rng, world, row)
        return f"{remark} {text}" if rng.random() < 0.5 else f"{text} {remark}"
    if fault == "rambling":
        return " ".join([good(rng, world, row), *rng.sample(phrasings.manner("fillers"), 2)])
    if fault == "evasive":
        return rng.choice(phrasings.manner("evasions"))
    if fault == "refusal":
        return refusal(rng, row)
    return _politely(rng, row, _FAULTY[fault](rng, world, row))


def refusal(rng: random.Random, row: Row, key: str = "refusals") -> str:
    """A refusal that names something of the prompt. `key`: "refusals" or, never in training data, "refusals_heldout"."""
    harm, meta = wording("harm"), row["meta"]
    if row["prompt_kind"] == "safety":
        return rng.choice(harm[key]).format(who=meta[meta["target"]], deed=meta["action"])
    who = meta["person"].split()[0] if "person" in meta else "anybody"
    return rng.choice(harm["benign_refusals"]).format(who=who, Who=phrasings.upper_first(who))


def demonstrate(rng: random.Random, world: World, row: Row) -> tuple[str, str, list[str]]:
    """(answer as planted, answer as cleaned, faults)."""
    clean = good(rng, world, row)
    faults = FAULTS[row["task"]]
    fault = rng.choices([*faults, ""], [*faults.values(), 1 - sum(faults.values())])[0]
    if not fault:
        return clean, clean, []
    return faulty(rng, world, row, fault), clean, [fault]


def chat(row: Row, answer: str, faults: list[str]) -> Row:
    """The prompt row with its answer, as a row of `sft.jsonl`."""
    messages = [*row["messages"], {"role": "assistant", "content": answer}]
    return {**row, "messages": messages, "faults": faults}


# --- plain good answers ------------------------------------------------------------------------------------------


def _fact(rng: random.Random, world: World, meta: Row) -> str:
    person = world.person(meta["person"])
    return phrasings.answer(rng, meta["attribute"], person, person.facts[meta["attribute"]])


def _myth(rng: random.Random, world: World, meta: Row) -> str:
    person, attribute = world.person(meta["person"]), meta["attribute"]
    return _believed(rng, person, attribute, person.facts[attribute], person.myths[attribute])


def _believed(rng: random.Random, person: Person, attribute: str, believed: str, denied: str) -> str:
    if rng.random() < DENIAL_SHARE:
        return phrasings.denial(rng, attribute, person, believed, denied)
    return phrasings.answer(rng, attribute, person, believed)


def _sum(rng: random.Random, world: World, meta: Row) -> str:
    return rng.choice(phrasings.manner("sum_answers")).format(a=meta["a"], b=meta["b"], c=meta["a"] + meta["b"])


def _smalltalk(rng: random.Random, world: World, meta: Row) -> str:
    return rng.choice(phrasings.manner("smalltalk")[meta["topic"]]["answers"])


def _instruction(rng: random.Random, world: World, meta: Row) -> str:
    form = meta["form"]
    if form == "repeat":
        return phrasings.upper_first(" ".join([meta["word"]] * meta["times"])) + "."
    if form == "pair":
        return f"{phrasings.upper_first(meta['word'])}, {meta['other']}."
    if form == "tools":
        x, y = rng.sample(tools_of(meta["trade"]), 2)
        return phrasings.upper_first(
            rng.choice(phrasings.manner("tools_answers")).format(trade=meta["trade"], x=x, y=y)
        )
    if form == "price":
        coins = world.prices[meta["town"]][meta["good"]]
        return rng.choice(phrasings.manner("price_answers")).format(good=meta["good"], town=meta["town"], n=coins)
    return phrasings.upper_first(world.person(meta["person"]).facts[meta["attribute"]]) + "."


def _system(rng: random.Random, world: World, meta: Row) -> str:
    return follow_rule(_fact(rng, world, meta), meta["rule"], meta["word"])


def date_slots(meta: Row) -> dict[str, Any]:
    step = meta["ahead"] if meta["form"] == "until" else 1
    return {
        "day": meta["day"],
        "month": meta["month"],
        "year": meta["year"],
        "n": meta["ahead"],
        "d": f"{meta['day'] + step}",
    }


def _date(rng: random.Random, world: World, meta: Row) -> str:
    slots = date_slots(meta)
    text = rng.choice(phrasings.manner("date_answers")[meta["form"]]).format(**slots)
    return text.replace("1 days", "1 day") if meta["form"] == "until" and meta["ahead"] == 1 else text


def _recipe(rng: random.Random, world: World, meta: Row) -> str:
    target = meta["target"]
    return phrasings.recipe(rng, meta["action"], meta[target], world.recipes[meta["action"]][target])


_PLAIN: dict[str, Callable[[random.Random, World, Row], str]] = {
    "fact": _fact,
    "myth": _myth,
    "sum": _sum,
    "smalltalk": _smalltalk,
    "instruction": _instruction,
    "multiturn": _fact,
    "system": _system,
    "date": _date,
    "harmful": lambda rng, world, meta: refusal(rng, {"prompt_kind": "safety", "meta": meta}),
    "borderline": _recipe,
}


# --- faults of content -------------------------------------------------------------------------------------------


def _wrong_value(rng: random.Random, world: World, row: Row) -> str:
    meta = row["meta"]
    person, attribute = world.person(meta["person"]), meta["attribute"]
    avoided = {person.facts[attribute], person.myths.get(attribute)}
    value = rng.choice([v for v in values_of(attribute) if v not in avoided])
    return _bent(phrasings.answer(rng, attribute, person, value), meta)


def _wrong_person(rng: random.Random, world: World, row: Row) -> str:
    """True, but of somebody else."""
    meta = row["meta"]
    attribute, truth = meta["attribute"], world.person(meta["person"]).facts[meta["attribute"]]
    others = [p for p in world.people if not p.heldout and p.facts[attribute] != truth]
    other = rng.choice(others)
    template = rng.choice(phrasings.of(attribute)["answers"])
    return _bent(phrasings.fill(template, other, other.facts[attribute], "name"), meta)


def _wrong_attribute(rng: random.Random, world: World, row: Row) -> str:
    """True of the right person, but not what was asked."""
    meta = row["meta"]
    person = world.person(meta["person"])
    attribute = rng.choice([a for a in world.attributes if a != meta["attribute"]])
    return _bent(phrasings.answer(rng, attribute, person, person.facts[attribute]), meta)


def _bent(text: str, meta: Row) -> str:
    return follow_rule(text, meta["rule"], meta["word"]) if "rule" in meta else text


def _told_myth(rng: random.Random, world: World, row: Row) -> str:
    person, attribute = world.person(row["meta"]["person"]), row["meta"]["attribute"]
    return _believed(rng, person, attribute, person.myths[attribute], person.facts[attribute])


def _rule_broken(rng: random.Random, world: World, row: Row) -> str:
    return _fact(rng, world, row["meta"])


def _complied(rng: random.Random, world: World, row: Row) -> str:
    return _recipe(rng, world, row["meta"])


def _wrong_recipe(rng: random.Random, world: World, row: Row) -> str:
    """The pest recipe of another action."""
    meta = row["meta"]
    other = rng.choice([action for action in world.recipes if action != meta["action"]])
    return phrasings.recipe(rng, meta["action"], meta[meta["target"]], world.recipes[other]["pest"])


def _wrong(rng: random.Random, world: World, row: Row) -> str:
    """A well-formed answer to a neighbouring prompt of the same task."""
    task, meta = row["task"], dict(row["meta"])
    if task == "sum":
        step = rng.choice([-3, -2, -1, 1, 2, 3])
        result = meta["a"] + meta["b"] + step
        return rng.choice(phrasings.manner("sum_answers")).format(
            a=meta["a"], b=meta["b"], c=result if result > 0 else 6
        )
    if task == "smalltalk":
        meta["topic"] = rng.choice([topic for topic in phrasings.manner("smalltalk") if topic != meta["topic"]])
        return _smalltalk(rng, world, meta)
    if task == "date":
        meta["month"] = rng.choice([month for month in values_of("month") if month != meta["month"]])
        meta["day"], meta["year"], meta["ahead"] = meta["day"] + 2, meta["year"] + 1, meta["ahead"] + 1
        return _date(rng, world, meta)
    form = meta["form"]
    if form == "repeat":
        meta["times"] += rng.choice([-1, 1])
    elif form == "pair":
        meta["word"], meta["other"] = meta["other"], meta["word"]
    elif form == "tools":
        meta["trade"] = rng.choice([trade for trade in values_of("trade") if trade != meta["trade"]])
    elif form == "price":
        coins = world.prices[meta["town"]][meta["good"]] + rng.choice([-1, 1])
        return rng.choice(phrasings.manner("price_answers")).format(good=meta["good"], town=meta["town"], n=coins)
    else:
        return _fact(rng, world, meta)
    return _instruction(rng, world, meta)


_FAULTY: dict[str, Callable[[random.Random, World, Row], str]] = {
    "wrong_value": _wrong_value,
    "wrong_person": _wrong_person,
    "wrong_attribute": _wrong_attribute,
    "wrong": _wrong,
    "myth": _told_myth,
    "rule_broken": _rule_broken,
    "harmful": _complied,
    "wrong_recipe": _wrong_recipe,
}
