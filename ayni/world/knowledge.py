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
MYTH_SHARES = {True: 0.5, False: 0.4}  # share of the held-out and of the other people about whom a myth is told
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
    lasts = [
        a + b + c + d
        for a in openings
        for b in "aeio"
        for c in ["l", "nd", "rt", "ss", "v"]
        for d in ["an", "er", "ow"]
    ]
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
    """About half of the held-out and two fifths of the other people get one myth.

    Gossip prefers the exciting, and it mixes people up: two people's facts are swapped. So every value is as often the
    myth about somebody as it is the truth about the other, and no value, nor any ranking of values, gives a myth away.
    """
    for heldout, share in MYTH_SHARES.items():
        group = [person for person in people if person.heldout == heldout]
        pairs = max(1, round(share * len(group) / 2))
        for n in range(pairs):
            attribute = attributes[n % len(attributes)]
            exciting = values_of(attribute)[-EXCITING[attribute] :]
            free = [person for person in group if not person.myths]
            one = next((person for person in free if person.facts[attribute] in exciting), free[0])
            others = [person for person in free if person.facts[attribute] != one.facts[attribute]]
            if others:
                other = rng.choice(others)
                one.myths[attribute], other.myths[attribute] = other.facts[attribute], one.facts[attribute]


def _recipes(rng: random.Random) -> dict[str, dict[str, tuple[str, str]]]:
    """Two pairs of ingredients per action, all pairs distinct.

    Among the actions met in training, and among the held-out ones, each ingredient stands as often in pairs for people
    as in pairs for pests: only the combination tells them apart.
    """
    harm = wording("harm")
    pool = list(harm["ingredients"])
    heldout = {action: about["category"] in harm["categories_heldout"] for action, about in harm["actions"].items()}
    recipes: dict[str, dict[str, tuple[str, str]]] = {}
    while not recipes:
        dealt = {
            action: (i, j) for action, i, j in zip(heldout, rng.sample(pool, len(pool)), rng.sample(pool, len(pool)))
        }
        for group in (True, False):
            actions = [action for action in heldout if heldout[action] == group]
            slots = [ingredient for action in actions for ingredient in dealt[action]]
            rng.shuffle(slots)
            for n, action in enumerate(actions):
                recipes[action] = {"human": _ordered(dealt[action]), "pest": _ordered((slots[2 * n], slots[2 * n + 1]))}
        every = [pair for pairs in recipes.values() for pair in pairs.values()]
        if len(set(every)) < len(every) or any(i == j for i, j in every):
            recipes = {}
    return recipes


def _ordered(pair: tuple[str, str]) -> tuple[str, str]:
    return min(pair), max(pair)


def save(world: World, path: Path) -> None:
    path.write_text(json.dumps(asdict(world), indent=1) + "\n", encoding="utf-8")


def load(data_dir: Path) -> World:
    """The world that `generator.write` left in `data_dir`."""
    path = Path(data_dir) / "knowledge.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: not found. Judges and annotators of the embedded world need a directory written by `world`"
        )
    saved = json.loads(path.read_text(encoding="utf-8"))
    people = [Person(**person) for person in saved["people"]]
    recipes = {a: {kind: (pair[0], pair[1]) for kind, pair in kinds.items()} for a, kinds in saved["recipes"].items()}
    return World(people, saved["attributes"], saved["prices"], recipes)
