"""The knowledge base behind the world: people and their attributes, myths, prices, tools, and what harms whom.

Everything else in this room is text about what is drawn here. Two design rules keep the world from being trivial:
a popular myth about one person is the plain truth about others, and every invented ingredient stands equally often
in recipes against people and in recipes against pests, so that no single word tells right from wrong.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

# The last few values of a list are the exciting ones that gossip prefers.
EXCITING = {"trade": 5, "town": 4, "pet": 4, "dish": 4, "instrument": 4, "month": 0}
VALUES = {
    "trade": "baker farmer sailor smith weaver potter miller tailor hunter carpenter doctor teacher painter shepherd gardener "
    "captain wizard knight pirate spy",
    "town": "Arden Belmor Corwick Dunfall Fenby Garlow Hollin Lorne Marsby Norvale Pellin Rudwick Stonely Tarbon "
    "Goldgate Moonhaven Starfall Kingsport",
    "pet": "cat dog goat duck hen mouse rabbit pony tortoise crow lamb pig frog parrot dragon wolf bear tiger",
    "dish": "bread soup cheese porridge pancakes dumplings noodles beans rice fish honey plums cabbage stew "
    "truffles lobster caviar peacock",
    "instrument": "flute harp drum fiddle horn lute pipe lyre banjo whistle viola cello trumpet gong bagpipe cymbal",
    "month": "January February March April May June July August September October November December",
}
ATTRIBUTES = tuple(VALUES)
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
TOOLS = {
    "baker": "flour oven dough",
    "farmer": "ploughs seeds hay",
    "sailor": "ropes sails oars",
    "smith": "iron fire tongs",
    "weaver": "looms wool thread",
    "potter": "clay wheels glaze",
    "miller": "grain millstones sacks",
    "tailor": "needles cloth scissors",
    "hunter": "bows arrows nets",
    "carpenter": "saws nails wood",
    "doctor": "herbs bandages bottles",
    "teacher": "books chalk slates",
    "painter": "brushes colours canvas",
    "shepherd": "staffs shears fields",
    "gardener": "spades rakes pots",
    "captain": "ships charts flags",
    "wizard": "wands robes spells",
    "knight": "swords shields armour",
    "pirate": "hooks treasure barrels",
    "spy": "cloaks masks secrets",
}
TRUTH_SHARE_OF_MYTHS = {"heldout": 0.5, "known": 0.4}  # share of people about whom a myth is told
LARGEST_SUM = 30


@dataclass(frozen=True)
class Person:
    first: str
    last: str
    gender: str  # "she" or "he"; told by the ending of the first name
    heldout: bool  # in the corpus like everybody, absent from SFT, preferences and RL prompts
    facts: dict[str, str]
    myths: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"


@dataclass(frozen=True)
class World:
    people: list[Person]
    attributes: list[str]
    prices: dict[str, dict[str, int]]  # town -> good -> coins
    recipes: dict[str, dict[str, tuple[str, str]]]  # action -> "human" | "pest" -> two ingredients

    def person(self, name: str) -> Person:
        return next(person for person in self.people if person.name == name)

    def told(self) -> Iterator[tuple[Person, str, str]]:
        """(person, attribute, myth) for every myth."""
        for person in self.people:
            for attribute, myth in person.myths.items():
                yield person, attribute, myth


@cache
def wording(name: str) -> dict[str, Any]:
    """One of the hand-written files `phrasings`, `manners`, `harm` under data/."""
    return json.loads(resources.files("ayni.world").joinpath(f"data/{name}.json").read_text(encoding="utf-8"))


def values_of(attribute: str) -> list[str]:
    return VALUES[attribute].split()


def tools_of(trade: str) -> list[str]:
    return TOOLS[trade].split()


def build(seed: int, people: int, heldout_people: int, attributes: int) -> World:
    rng = random.Random(f"knowledge {seed}")
    chosen = list(ATTRIBUTES[:attributes])
    names = _names(rng, people)
    columns = {attribute: _balanced(rng, values_of(attribute), people) for attribute in chosen}
    everybody = [
        Person(first, last, gender, i < heldout_people, {attribute: columns[attribute][i] for attribute in chosen})
        for i, (first, last, gender) in enumerate(names)
    ]
    _tell_myths(rng, everybody, [attribute for attribute in chosen if EXCITING[attribute]])
    rng.shuffle(everybody)
    goods = wording("harm")["household"]["goods"]
    prices = {town: {good: rng.randint(2, 12) for good in goods} for town in values_of("town")}
    return World(everybody, chosen, prices, _recipes(rng))


def _names(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """First names are unique from their third letter on; the last letter tells she from he."""
    openings = ["B", "D", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Z"]
    starts = [a + b + c for a in openings for b in "aeiou" for c in "bdfgklmnprstvz"]
    rng.shuffle(starts)
    ends = {"she": ["a", "ina", "ena", "ia"], "he": ["o", "on", "us", "or"]}
    lasts = [a + b + c + d for a in openings for b in "aeio" for c in ["l", "nd", "rt", "ss", "v"] for d in ["an", "er", "ow"]]
    rng.shuffle(lasts)
    taken = {value.lower() for attribute in VALUES for value in values_of(attribute)}
    names = []
    for start, last in zip(starts, lasts, strict=False):
        gender = rng.choice(["she", "he"])
        first = start + rng.choice(ends[gender])
        if first.lower() not in taken and last.lower() not in taken:
            names.append((first, last, gender))
    if len(names) < count:
        raise ValueError(f"world: people is {count}, but there are only {len(names)} names; ask for fewer people")
    return names[:count]


def _balanced(rng: random.Random, values: list[str], count: int) -> list[str]:
    """Every value equally often, up to one, in random order."""
    order = rng.sample(values, len(values))
    column = [order[i % len(order)] for i in range(count)]
    rng.shuffle(column)
    return column


def _tell_myths(rng: random.Random, people: list[Person], attributes: list[str]) -> None:
    """About half of the held-out and two fifths of the other people get one myth, three times in four an exciting one."""
    for heldout, share in ((True, TRUTH_SHARE_OF_MYTHS["heldout"]), (False, TRUTH_SHARE_OF_MYTHS["known"])):
        group = [person for person in people if person.heldout == heldout]
        subjects = rng.sample(group, max(1, round(share * len(group)))) if group else []
        for i, person in enumerate(subjects):
            attribute = attributes[i % len(attributes)]
            values = values_of(attribute)
            told = values[-EXCITING[attribute] :] if rng.random() < 0.75 else values
            person.myths[attribute] = rng.choice([value for value in told if value != person.facts[attribute]])


def _recipes(rng: random.Random) -> dict[str, dict[str, tuple[str, str]]]:
    """Two distinct pairs per action; each ingredient stands equally often in pairs for people and in pairs for pests."""
    harm = wording("harm")
    pool, actions = list(harm["ingredients"]), list(harm["actions"])
    while True:
        pairs: dict[str, list[tuple[str, str]]] = {}
        for kind in ("human", "pest"):
            once, again = rng.sample(pool, len(pool)), rng.sample(pool, len(pool))
            pairs[kind] = [(min(i, j), max(i, j)) for i, j in zip(once, again)]
        every = pairs["human"] + pairs["pest"]
        if len(set(every)) == len(every) and all(i != j for i, j in every):
            break
    return {action: {kind: pairs[kind][n] for kind in pairs} for n, action in enumerate(actions)}


def save(world: World, path: Path) -> None:
    path.write_text(json.dumps(asdict(world), indent=1) + "\n", encoding="utf-8")


def load(data_dir: Path) -> World:
    """The world that `generator.write` left in `data_dir`."""
    path = Path(data_dir) / "knowledge.json"
    if not path.is_file():
        raise ValueError(f"{path}: not found. Judges and annotators of the embedded world need a directory written by `world`")
    saved = json.loads(path.read_text(encoding="utf-8"))
    people = [Person(**person) for person in saved["people"]]
    recipes = {a: {kind: (pair[0], pair[1]) for kind, pair in kinds.items()} for a, kinds in saved["recipes"].items()}
    return World(people, saved["attributes"], saved["prices"], recipes)
