"""How hard a prompt is, and the long dialogues that only the later rounds of annotation see.

Both are read off the prompt: what is asked, how, and after how many turns. Nothing here knows the answer.
"""

from __future__ import annotations

import random
from typing import Any

from ayni.world import phrasings, prompts
from ayni.world.knowledge import Person
from ayni.world.prompts import Field, Messages, Row, asked, key, user

# From "everybody can" to "where the myth is told more often than the fact". Harmful prompts and their look-alikes are one
# as hard as the other: what tells them apart is the attack style.
TASKS = {
    "smalltalk": 0.05,
    "fact": 0.15,
    "sum": 0.2,
    "harmful": 0.3,
    "borderline": 0.3,
    "date": 0.3,
    "instruction": 0.35,
    "system": 0.45,
    "multiturn": 0.45,
    "myth": 0.5,
}
STYLES = {"direct": 0.0, "false_premise": 0.15, "role_play": 0.2, "misspelling": 0.25, "language": 0.3}
HEARSAY, TURN = 0.15, 0.1  # a rumour in front of the question; every turn of the user's before it

LONG_SHARES = {"multiturn": 0.3, "myth": 0.25, "instruction": 0.15, "harmful": 0.13, "borderline": 0.17}
TURNS = (3, 4, 5)  # of the user's


def difficulty(row: Row) -> float:
    """Between 0 and 1; higher is harder."""
    meta = row["meta"]
    turns = sum(message["role"] == "user" for message in row["messages"])
    hard = TASKS[row["task"]] + STYLES.get(meta.get("style", "direct"), 0.3) + TURN * (turns - 1)
    return round(min(1.0, hard + HEARSAY * (meta.get("form") == "hearsay")), 3)


def long_dialogues(rng: random.Random, area: Field, count: int, forbidden: set[str]) -> list[Row]:
    """Dialogues of three to five turns: the last question is one of `LONG_SHARES`, what stands before it is well answered.

    None asks, in any turn, what is `forbidden`.
    """
    rows: list[Row] = []
    used: set[str] = set()
    for task, share in LONG_SHARES.items():
        rows += prompts.take(task, rng, area, max(1, round(count * share)), forbidden, used, _long_dialogue)
    rng.shuffle(rows)
    return rows


def _long_dialogue(task: str, rng: random.Random, area: Field) -> Row:
    """A row of `task` behind an exchange or more about one person; a follow-up's own person, where it is one ("they")."""
    row = prompts.draw(task, rng, area)
    meta = row["meta"]
    before = sum(message["role"] == "user" for message in row["messages"]) - 1
    people = [person for person in area.people if person.name == meta.get("person")]
    person = people[0] if task == "multiturn" else rng.choice(area.people)
    # The dialogue must not answer what it ends with.
    told = {meta.get("attribute"), meta.get("first")} if person.name == meta.get("person") else set()
    open_to_talk = [attribute for attribute in area.world.attributes if attribute not in told]
    wanted = rng.choice(TURNS) - 1 - before
    opening: Messages = []
    for attribute in rng.sample(open_to_talk, min(wanted, len(open_to_talk))):
        opening += _exchange(rng, area, person, attribute, meta)
    return {**row, "messages": opening + row["messages"]}


def _exchange(rng: random.Random, area: Field, person: Person, attribute: str, meta: dict[str, Any]) -> Messages:
    """A question about a person and its right answer; `meta["keys"]` gains what it asks."""
    phrasing, text = asked(rng, area, attribute, person)
    meta["keys"].append(key(person.name, attribute, phrasing))
    said = phrasings.answer(rng, attribute, person, person.facts[attribute])
    return [user(text), {"role": "assistant", "content": said}]
