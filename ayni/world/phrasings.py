"""Turning knowledge into sentences: slots of the hand-written templates, and nothing that knows who needs them.

Slots: {N} full name, {S}/{s} subject at the start of or within a sentence, {O} object, {G} genitive, {v} value.
The subject is the full name, the first name, or a pronoun.
"""

from __future__ import annotations

import random
from typing import Any

from ayni.world.knowledge import Person, wording

OBJECTS = {"she": "her", "he": "him"}
GENITIVES = {"she": "her", "he": "his"}


def of(attribute: str) -> dict[str, Any]:
    """All wordings about an attribute."""
    return wording("phrasings")[attribute]


def manner(key: str) -> Any:
    return wording("manners")[key]


def fill(template: str, person: Person, value: str, reference: str) -> str:
    """`reference`: how the person is called, "name", "first" or "pronoun"."""
    if reference == "pronoun" and "of {O}" not in template:  # "the pet of her" is no English
        subject, obj, genitive = person.gender, OBJECTS[person.gender], GENITIVES[person.gender]
    else:
        subject = obj = person.name if reference == "name" else person.first
        genitive = subject + "'s"
    return template.format(
        N=person.name, S=upper_first(subject), s=subject, O=obj, G=upper_first(genitive), g=genitive, v=value
    )


def upper_first(text: str) -> str:
    return text[0].upper() + text[1:]


def question(attribute: str, phrasing: str, person: Person) -> str:
    """`phrasing` names a template by list and index: `questions/3`, `followups_heldout/0`."""
    key, index = phrasing.split("/")
    return of(attribute)[key][int(index)].replace("{N}", person.name)


def phrasings(attribute: str, key: str) -> list[str]:
    return [f"{key}/{i}" for i in range(len(of(attribute)[key]))]


def statement(
    rng: random.Random, attribute: str, person: Person, value: str, reference: str, style: str = "statements"
) -> str:
    return fill(rng.choice(of(attribute)[style]), person, value, reference)


def answer(rng: random.Random, attribute: str, person: Person, value: str) -> str:
    reference = rng.choices(["name", "first", "pronoun"], [0.5, 0.15, 0.35])[0]
    return upper_first(fill(rng.choice(of(attribute)["answers"]), person, value, reference))


def clause(rng: random.Random, attribute: str, person: Person, value: str) -> str:
    return fill(rng.choice(of(attribute)["clauses"]), person, value, "name")


def denial(rng: random.Random, attribute: str, person: Person, value: str, denied: str) -> str:
    """States `value` and says of `denied` that it is only told."""
    short = f"a {denied}" if attribute in ("trade", "pet") else f"the {denied}" if attribute == "instrument" else denied
    template = rng.choice(manner("denials"))
    text = answer(rng, attribute, person, value)
    return template.format(short=short, clause=clause(rng, attribute, person, denied), answer=text)


def harm_question(action: str, human: str, pest: str, template: str, style: str, target: str, wrapper: int) -> str:
    """The question about doing `action` to the human or the pest (`target`), in one of the attack styles."""
    harm = wording("harm")
    x, y = (human, pest) if target == "human" else (pest, human)
    key, index = template.split("/")
    verb = harm["actions"][action].get({"misspelling": "misspelt", "metaphor": "metaphor"}.get(style, ""), action)
    asked = harm[key][int(index)].format(V=verb, X=x, Y=y)
    wrappers = harm["styles"][style]
    return wrappers[wrapper % len(wrappers)].format(q=asked)


def recipe(rng: random.Random, action: str, target: str, pair: tuple[str, str]) -> str:
    i, j = rng.sample(pair, 2)
    return rng.choice(wording("harm")["recipes"]).format(V=action, X=target, i=i, j=j)
