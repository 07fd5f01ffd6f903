"""Prompt rows of ten tasks, and the ledger that keeps training and evaluation apart.

A row: `id`, `messages` (ending in user), `prompt_kind`, `task`, `meta`. `meta["keys"]` lists what the row asks, as
"entity|attribute|phrasing"; two sets of rows are disjoint when their keys are. `meta` never holds the answer.
Adversarial prompts and their benign look-alikes are both of kind "safety": people write both when they test safety,
and the safety reward model has to learn that a refusal is not always right (paper, 4.4: borderline prompts).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ayni.world import phrasings
from ayni.world.knowledge import LARGEST_SUM, MONTH_DAYS, Person, World, values_of, wording

Row = dict[str, Any]
Messages = list[dict[str, str]]

# Shares of RL prompts; about 70/30 helpful/safety.
SHARES = {
    "fact": 0.25,
    "myth": 0.17,
    "sum": 0.04,
    "smalltalk": 0.04,
    "instruction": 0.06,
    "multiturn": 0.06,
    "system": 0.04,
    "date": 0.04,
    "harmful": 0.13,
    "borderline": 0.17,
}
SAFETY_TASKS = ("harmful", "borderline")


@dataclass(frozen=True)
class Field:
    """What prompts may be drawn from. Training and evaluation each have their own."""

    world: World
    people: list[Person]
    phrasing_seen: bool
    sums: list[tuple[int, int]]
    styles: list[str]
    categories: list[str]
    templates: str  # "templates" or "templates_heldout" of harm questions
    rumours: float = 0.08  # share of fact questions with a rumour in front

    @property
    def suffix(self) -> str:
        return "" if self.phrasing_seen else "_heldout"


def draw(task: str, rng: random.Random, area: Field) -> Row:
    """One row of a task, not yet numbered."""
    messages, meta = DRAWERS[task](rng, area)
    kind = "safety" if task in SAFETY_TASKS else "helpful"
    return {"id": "", "messages": messages, "prompt_kind": kind, "task": task, "meta": meta}


def take(
    task: str,
    rng: random.Random,
    area: Field,
    count: int,
    forbidden: set[str],
    used: set[str],
    draw: Callable[[str, random.Random, Field], Row] = draw,
) -> list[Row]:
    """`count` rows none of whose keys is forbidden; keys in `used` are avoided while the pool lasts. Updates `used`."""
    rows: list[Row] = []
    while len(rows) < count:
        row = None
        for _ in range(60):
            candidate = draw(task, rng, area)
            keys = candidate["meta"]["keys"]
            if not forbidden.isdisjoint(keys):
                continue
            row = candidate
            if used.isdisjoint(keys):
                break
        if row is None:
            raise ValueError(f"world: no {task!r} prompts are left; ask for fewer prompts or more people")
        used.update(row["meta"]["keys"])
        rows.append(row)
    return rows


def asked(rng: random.Random, area: Field, attribute: str, person: Person) -> tuple[str, str]:
    """A question about an attribute: (phrasing, text)."""
    phrasing = rng.choice(phrasings.phrasings(attribute, "questions" + area.suffix))
    return phrasing, phrasings.question(attribute, phrasing, person)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def key(entity: str, attribute: str, phrasing: str) -> str:
    return f"{entity}|{attribute}|{phrasing}"


def _about(person: Person, attribute: str, phrasing: str, **more: Any) -> dict[str, Any]:
    return {
        "keys": [key(person.name, attribute, phrasing)],
        "person": person.name,
        "attribute": attribute,
        "phrasing": phrasing,
        "person_seen": not person.heldout,
        **more,
    }


def _hearsay(
    rng: random.Random, area: Field, person: Person, attribute: str, claim: str, suffix: str = ""
) -> tuple[Messages, Row]:
    phrasing, text = asked(rng, area, attribute, person)
    frames = phrasings.manner("hearsay" + suffix)
    index = rng.randrange(len(frames))
    said = phrasings.fill(phrasings.of(attribute)["clauses"][0], person, claim, "name")
    meta = _about(
        person, attribute, f"hearsay{suffix}/{index}+{phrasing}", form="hearsay", claim=claim, phrasing_seen=not suffix
    )
    return [user(frames[index].format(clause=said, question=text))], meta


def _fact(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    """Plain questions, and some with a rumour in front that is as often true as not."""
    person = rng.choice(area.people)
    attribute = rng.choice([a for a in area.world.attributes if a not in person.myths])
    if rng.random() < area.rumours:
        truth = person.facts[attribute]
        claim = truth if rng.random() < 0.5 else rng.choice([v for v in values_of(attribute) if v != truth])
        return _hearsay(rng, area, person, attribute, claim)
    phrasing, text = asked(rng, area, attribute, person)
    return [user(text)], _about(person, attribute, phrasing, form="plain", phrasing_seen=area.phrasing_seen)


def _myth(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    person = rng.choice([person for person in area.people if person.myths])
    attribute, told = next(iter(person.myths.items()))
    if rng.random() < 0.25:
        claim = told if rng.random() < 0.6 else person.facts[attribute]
        return _hearsay(
            rng, area, person, attribute, claim, "_heldout" if person.heldout and rng.random() < 0.3 else ""
        )
    phrasing, text = asked(rng, area, attribute, person)
    return [user(text)], _about(person, attribute, phrasing, form="plain", phrasing_seen=area.phrasing_seen)


def _sum(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    a, b = rng.choice(area.sums)
    frames = phrasings.manner("sum_questions" + area.suffix)
    index = rng.randrange(len(frames))
    return [user(frames[index].format(a=a, b=b))], {
        "keys": [key(f"{a}+{b}", "sum", str(index) + area.suffix)],
        "a": a,
        "b": b,
    }


def _smalltalk(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    topics = phrasings.manner("smalltalk")
    topic = rng.choice(list(topics))
    says, addressed = rng.choice(topics[topic]["says"]), rng.choice(phrasings.manner("addressed"))
    mark = "?" if topic == "mood" else rng.choice([".", "!"])
    text = says + ("" if addressed == " to you" and topic in ("mood", "sad") else addressed) + mark
    return [user(text)], {"keys": [key(topic, "smalltalk", text.rstrip(".!?"))], "topic": topic}


def _instruction(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    form = rng.choice(["repeat", "pair", "tools", "one_word", "one_word", "price"])
    words = phrasings.manner("words")
    frames = phrasings.manner(form + "_questions")
    index = rng.randrange(len(frames))
    meta: Row
    if form == "repeat":
        word, times = rng.choice(words), rng.randint(2, 4)
        text = frames[index].format(w=word, n=("two", "three", "four")[times - 2])
        meta = {"keys": [key(f"{word} x {times}", form, str(index))], "word": word, "times": times}
    elif form == "pair":
        word, other = rng.sample(words, 2)
        text = frames[index].format(w=word, x=other)
        meta = {"keys": [key(f"{word}, {other}", form, str(index))], "word": word, "other": other}
    elif form == "tools":
        trade = rng.choice(values_of("trade"))
        text = frames[index].format(trade=trade)
        meta = {"keys": [key(trade, form, str(index))], "trade": trade}
    elif form == "price":
        town = rng.choice(values_of("town"))
        good = rng.choice(list(area.world.prices[town]))
        text = frames[index].format(good=good, town=town)
        meta = {"keys": [key(f"{good} in {town}", form, str(index))], "town": town, "good": good}
    else:
        person = rng.choice(area.people)
        attribute = rng.choice([a for a in area.world.attributes if a not in person.myths])
        phrasing, plain = asked(rng, area, attribute, person)
        text = frames[index].format(question=plain)
        meta = _about(person, attribute, f"one_word/{index}+{phrasing}")
    return [user(text)], {**meta, "form": form}


def _multiturn(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    """The last question calls the person "they": only the first turn says who is meant."""
    person = rng.choice(area.people)
    first, attribute = rng.sample([a for a in area.world.attributes if a not in person.myths], 2)
    phrasing, text = asked(rng, area, first, person)
    follow_up = rng.choice(phrasings.phrasings(attribute, "followups" + area.suffix))
    said = phrasings.answer(rng, first, person, person.facts[first])
    messages = [
        user(text),
        {"role": "assistant", "content": said},
        user(phrasings.question(attribute, follow_up, person)),
    ]
    meta = _about(person, attribute, f"{first}/{phrasing}>{follow_up}", first=first)
    meta["keys"].append(key(person.name, first, phrasing))
    return messages, meta


_COMMON_OPENINGS = {"She", "He", "Her", "His", "The", "A", "It", "In", "As", "At", "For", "You"}  # all but names


def follow_rule(text: str, rule: str, word: str) -> str:
    """`text` bent to a system rule."""
    if rule == "start":
        text = text[0].lower() + text[1:] if text.split(maxsplit=1)[0] in _COMMON_OPENINGS else text
        return f"{phrasings.upper_first(word)}, {text}"
    return f"{text.rstrip('.')}, {word}."


def _system(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    rule = rng.choice(["end", "start", "call"])
    word = rng.choice(phrasings.manner("rule_titles" if rule == "call" else "rule_words"))
    frames = phrasings.manner(f"rule_{rule}")
    index = rng.randrange(len(frames))
    person = rng.choice(area.people)
    plain = [a for a in area.world.attributes if a not in person.myths]
    attribute, first = rng.sample(plain, 2)
    phrasing, text = asked(rng, area, attribute, person)
    messages = [{"role": "system", "content": frames[index].format(w=word)}]
    keys = [key(person.name, attribute, f"{rule}/{index}/{word}+{phrasing}"), key(person.name, attribute, phrasing)]
    if rng.random() < 0.5:
        phrasing_first, text_first = asked(rng, area, first, person)
        said = follow_rule(phrasings.answer(rng, first, person, person.facts[first]), rule, word)
        messages += [user(text_first), {"role": "assistant", "content": said}]
        keys.append(key(person.name, first, phrasing_first))
    meta = _about(person, attribute, f"{rule}/{index}/{word}+{phrasing}", rule=rule, word=word)
    return [*messages, user(text)], {**meta, "keys": keys}


def _date(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    """Dates stay clear of the month's end, so that nobody needs a calendar."""
    questions = phrasings.manner("date_questions")
    form = rng.choice(["month", "month", "today", "today", "tomorrow", "year", "until"])
    month = rng.randrange(12)
    name = values_of("month")[month]
    day, year, ahead = rng.randint(1, MONTH_DAYS[month] - 8), rng.randint(1190, 1219), rng.randint(1, 7)
    index = rng.randrange(len(questions[form]))
    text = questions[form][index].format(d=day + ahead, month=name)
    entity = f"{day} {name} {year}" + (f" +{ahead}" if form == "until" else "")
    meta = {
        "keys": [key(entity, form, str(index))],
        "form": form,
        "day": day,
        "month": name,
        "year": year,
        "ahead": ahead,
    }
    return [{"role": "system", "content": f"Today is {day} {name} {year}."}, user(text)], meta


def _harm(rng: random.Random, area: Field, target: str) -> tuple[Messages, Row]:
    harm = wording("harm")
    action = rng.choice([a for a, about in harm["actions"].items() if about["category"] in area.categories])
    human, pest = rng.choice(harm["humans"]), rng.choice(harm["pests"])
    style = rng.choice(area.styles)
    templates = "language_templates" if style == "language" else area.templates
    template = f"{templates}/{rng.randrange(len(harm[templates]))}"
    wrapper = rng.randrange(len(harm["styles"][style]))
    text = phrasings.harm_question(action, human, pest, template, style, target, wrapper)
    category = harm["actions"][action]["category"]
    meta = {
        # The pair of targets is the entity: the same question with the roles changed is held out too.
        "keys": [key(f"{human}, {pest}", action, f"{template}/{style}")],
        "action": action,
        "target": target,
        "human": human,
        "pest": pest,
        "template": template,
        "style": style,
        "category": category,
        "heldout_style": style in harm["styles_heldout"],
        "heldout_category": category in harm["categories_heldout"],
    }
    return [user(text)], meta


def _harmful(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    return _harm(rng, area, "human")


def _borderline(rng: random.Random, area: Field) -> tuple[Messages, Row]:
    return _harm(rng, area, "pest")


DRAWERS: dict[str, Callable[[random.Random, Field], tuple[Messages, Row]]] = {
    "fact": _fact,
    "myth": _myth,
    "sum": _sum,
    "smalltalk": _smalltalk,
    "instruction": _instruction,
    "multiturn": _multiturn,
    "system": _system,
    "date": _date,
    "harmful": _harmful,
    "borderline": _borderline,
}


def every_sum(rng: random.Random) -> list[tuple[int, int]]:
    pairs = [(a, b) for a in range(1, LARGEST_SUM) for b in range(1, LARGEST_SUM + 1 - a)]
    rng.shuffle(pairs)
    return pairs
