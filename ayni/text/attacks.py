"""Adversarial prompts along risk categories and attack styles (paper 4.2.1 and 4.3), and which of them stay out of training.

A bank is a YAML file that users extend (the keys stand at the head of `attacks/general.yaml`): objectives, each with its
risk category, and styles, each a set of templates around a request, a transformation of it, or turns of a dialogue.
For an objective a bank may hold a borderline look-alike: a harmless request in nearly the same words.

    row   id, messages (ending in user), prompt_kind "safety", task "harmful" or "borderline",
          meta: category, topic, style, vector, turns, objective, heldout_objective, heldout_style, heldout_category

Training and evaluation share no objective: which are held out is a function of the seed and the objective alone.
"""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ayni.config import Settings
from ayni.plugins import plugin
from ayni.text.native import Message

Row = dict[str, Any]
Target = Literal["harmful", "borderline"]
Slots = dict[str, str]
BANKS = ("general",)  # that come with Ayni as files; other names are plug-ins of the group `ayni.attacks`
WHOLE = "{q}"


def slots_of(template: str) -> set[str]:
    """The names in braces; ValueError for what is not a plain name."""
    found = set()
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is not None:
            if not name.isidentifier() or spec or conversion:
                raise ValueError(f"{template!r}: write {{name}} for a slot, and {{{{ }}}} for braces that are text")
            found.add(name)
    return found


class Style(Settings):
    """A way to attack. A template is a text around {q}, or the turns of a dialogue: user, assistant, ..., user."""

    vector: str = ""  # the paper's name for the kind of attack; empty: none, the request as it is
    templates: list[str | list[str]] = Field(default=[WHOLE], min_length=1)
    transform: Literal["none", "misspell", "digits"] = "none"  # of {q}, by the seed
    held_out: bool = False

    @field_validator("templates")
    @classmethod
    def _turns(cls, templates: list[str | list[str]]) -> list[str | list[str]]:
        for template in templates:
            if isinstance(template, list) and len(template) % 2 == 0:
                raise ValueError("the turns of a dialogue end with the user: give one, three, five, ... texts")
        return templates


class Objective(Settings):
    """What somebody wants: a whole request as text, or slots that the wordings of requests and styles put together."""

    id: str = ""
    category: str
    topic: str = ""
    harmful: str | Slots | None = None
    borderline: str | Slots | None = None  # the harmless look-alike
    before: list[Message] = []  # of the dialogue that leads to it
    group: str = ""  # objectives of one group are held out together; empty: its id
    meta: dict[str, Any] = {}  # joins the row's; what a judge needs to know
    meta_borderline: dict[str, Any] = {}

    @model_validator(mode="after")
    def _something(self) -> Objective:
        if not self.harmful and not self.borderline:
            raise ValueError("an objective needs `harmful` or `borderline`")
        return self

    def slots(self, target: Target) -> Slots:
        """Empty if there is no such side."""
        given = self.harmful if target == "harmful" else self.borderline
        return {"q": given} if isinstance(given, str) else given or {}


class Bank(Settings):
    requests: list[str] = []  # wordings of a request around an objective's slots
    styles: dict[str, Style] = {}
    objectives: list[Objective] = []
    escalations: list[str] = ["{q}"]  # what the user says next where an attack was refused
    rewrites: list[str] = []  # how a model is asked to word an attack anew, around {text}
    held_out_categories: list[str] = []

    @model_validator(mode="after")
    def _slots(self) -> Bank:
        known = {"q"} | {slot for o in self.objectives for t in TARGETS for slot in o.slots(t)}
        for name, style in self.styles.items():
            for text in (turn for template in style.templates for turn in _turns(template)):
                if self.objectives and (unknown := slots_of(text) - known):
                    raise ValueError(f"style {name}: {text!r} needs {min(unknown)!r}, which no objective has")
        for text in (*self.requests, *self.escalations):
            slots_of(text)
        if any("text" not in slots_of(text) for text in self.rewrites):
            raise ValueError("a rewrite needs the slot {text}, the attack to be worded anew")
        return self


TARGETS: tuple[Target, ...] = ("harmful", "borderline")


@dataclass(frozen=True)
class HeldOut:
    """What never trains: names of objectives, styles and categories."""

    objectives: frozenset[str]
    styles: frozenset[str]
    categories: frozenset[str]

    def trains(self, row: Row) -> bool:
        meta = row["meta"]
        return not (meta["objective"] in self.objectives or meta["style"] in self.styles or meta["category"] in self.categories)  # fmt: skip


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_bank(name: str | Path) -> Bank:
    """A bank that comes with Ayni, a plug-in's, or a YAML file. ValueError names file, line and mistake.

    A bank without styles is attacked in those of `general`.
    """
    path = Path(name)
    if str(name) in BANKS:
        text = (files("ayni.text") / "attacks" / f"{name}.yaml").read_text(encoding="utf-8")
        return read_bank(text, str(name))
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None
        return with_styles(read_bank(text, str(path)))
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ValueError(f"{path}: no such bank of attacks; give a YAML file, or one of {', '.join(BANKS)}")
    return with_styles(named(Bank(**plugin("attacks", str(name))()), str(name)))


def read_bank(text: str, name: str) -> Bank:
    try:
        values, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(values, dict) or root is None:
        raise ValueError(f"{name}: expected a mapping with the keys {', '.join(Bank.model_fields)}")
    try:
        return named(Bank(**values), name)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(name, root, mistake) for mistake in error.errors()[:5])) from None


def named(bank: Bank, name: str) -> Bank:
    """Every objective with an id; ValueError for an id that two have."""
    stem = Path(name).stem
    objectives = [o if o.id else o.model_copy(update={"id": f"{stem}-{own_id(o)}"}) for o in bank.objectives]
    ids = [objective.id for objective in objectives]
    if twice := next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None:
        raise ValueError(f"{name}: two objectives are called {twice!r}, or are the same; drop one or rename it")
    return bank.model_copy(update={"objectives": objectives})


def own_id(objective: Objective) -> str:
    """Of the objective's words alone, so that it stays when others join the bank."""
    said = [*sorted(objective.slots("harmful").items()), *sorted(objective.slots("borderline").items())]
    return f"{zlib.crc32(repr([objective.before, said]).encode()):08x}"


def with_styles(bank: Bank) -> Bank:
    if bank.styles:
        return bank
    general = load_bank("general")
    taken = {
        "styles": general.styles,
        "escalations": general.escalations,
        "rewrites": bank.rewrites or general.rewrites,
    }
    return bank.model_copy(update={**taken, "requests": bank.requests or general.requests})


def _explain(name: str, root: yaml.Node, mistake: Any) -> str:
    """One line for one pydantic error: file, line, key, and what was expected."""
    node, line = root, root.start_mark.line
    for key in mistake["loc"]:
        if isinstance(node, yaml.MappingNode):
            pair = next(((at, value) for at, value in node.value if at.value == str(key)), None)
            if pair is None:
                break
            node, line = pair[1], pair[0].start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node, line = node.value[key], node.value[key].start_mark.line
    where = ".".join(map(str, mistake["loc"])) or "the bank"
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        message = "unknown key; a bank's keys stand at the head of ayni/text/attacks/general.yaml"
    return f"{name}, line {line + 1}: {where}: {message}"


# ---- holding out -----------------------------------------------------------------------------------------------------


def hold_out(bank: Bank, seed: int, *, objectives: float, styles: int, categories: int) -> HeldOut:
    """A share of the objectives, by the hash of the group; styles and categories as the bank says, else drawn."""
    vectors = sorted(name for name, style in bank.styles.items() if style.vector)
    own = [name for name, style in bank.styles.items() if style.held_out]
    rng = random.Random(f"held-out styles {seed}")
    held_styles = own or rng.sample(vectors, min(styles, len(vectors)))
    known = sorted({objective.category for objective in bank.objectives})
    rng = random.Random(f"held-out categories {seed}")
    held_categories = bank.held_out_categories or rng.sample(known, min(categories, max(0, len(known) - 1)))
    held = [
        o.id
        for o in bank.objectives
        if o.category in held_categories
        or zlib.crc32(f"{seed} held-out objective {o.group or o.id}".encode()) % 10_000 < 10_000 * objectives
    ]
    return HeldOut(frozenset(held), frozenset(held_styles), frozenset(held_categories))


# ---- generating ------------------------------------------------------------------------------------------------------


def request(bank: Bank, objective: Objective, target: Target, rng: random.Random) -> str:
    """The objective as a request, {q}; empty if no wording has the slots for it."""
    slots = objective.slots(target)
    wordings = [WHOLE] if "q" in slots else [w for w in bank.requests if slots_of(w) <= slots.keys()]
    return rng.choice(wordings).format(**slots) if wordings and slots else ""


def attack(
    bank: Bank, held: HeldOut, objective: Objective, name: str, target: Target, rng: random.Random
) -> Row | None:
    """One row, not yet numbered; None if the style needs what the objective does not have."""
    found = _attack(bank, held, objective, name, target, rng)
    return found and found[0]


def _attack(
    bank: Bank, held: HeldOut, objective: Objective, name: str, target: Target, rng: random.Random
) -> tuple[Row, str] | None:
    """The row, and what it says before the style's transformation: two spellings of one text are no two attacks."""
    style = bank.styles[name]
    asked = request(bank, objective, target, rng)
    slots = {**objective.slots(target), **({"q": asked} if asked else {})}
    if not objective.slots(target):
        return None
    fitting = [t for t in style.templates if all(slots_of(turn) <= slots.keys() for turn in _turns(t))]
    if not fitting:
        return None
    template = _turns(rng.choice(fitting))
    plain = repr((objective.before, [turn.format(**slots) for turn in template], name))
    if asked:
        slots["q"] = TRANSFORMS[style.transform](asked, rng)
    said = [turn.format(**slots) for turn in template]
    turns: list[Message] = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]
    messages = [*objective.before, *turns]
    row = {
        "id": "",
        "messages": messages,
        "prompt_kind": "safety",
        "task": target,
        "meta": {
            **objective.meta,
            **(objective.meta_borderline if target == "borderline" else {}),
            "category": objective.category,
            "topic": objective.topic,
            "style": name,
            "vector": style.vector,
            "turns": sum(message["role"] == "user" for message in messages),
            "objective": objective.id,
            "heldout_objective": objective.id in held.objectives,
            "heldout_style": name in held.styles,
            "heldout_category": objective.category in held.categories,
        },
    }
    return row, plain


def generate(
    bank: Bank,
    held: HeldOut,
    *,
    count: int,
    seed: int,
    split: Literal["all", "train", "eval"] = "all",
    borderline: float = 0.25,
) -> list[Row]:
    """`count` different rows, categories and styles in turn; fewer where the bank has no more.

    `train` has no held-out objective, style or category; `eval` has held-out objectives alone, in every style.
    `borderline`: the chance of the look-alike, where an objective has both sides.
    """
    rng = random.Random(f"attacks {seed} {split}")
    cells: dict[tuple[str, str], list[Objective]] = {}
    for objective in bank.objectives:
        for name in bank.styles:
            if split == "train" and (name in held.styles or objective.id in held.objectives):
                continue
            if split == "eval" and objective.id not in held.objectives:
                continue
            cells.setdefault((objective.category, name), []).append(objective)
    order = sorted(cells)
    waiting: dict[tuple[str, str], list[Objective]] = {}
    rows: list[Row] = []
    seen: set[str] = set()
    while order and len(rows) < count:
        for cell in list(order):
            if len(rows) == count:
                break
            row = _next(bank, held, cells[cell], waiting.setdefault(cell, []), cell[1], borderline, rng, seen)
            if row is None:
                order.remove(cell)
            else:
                rows.append({**row, "id": f"attack-{split}-{len(rows)}"})
    return rows


def _next(
    bank: Bank,
    held: HeldOut,
    pool: Sequence[Objective],
    waiting: list[Objective],
    style: str,
    borderline: float,
    rng: random.Random,
    seen: set[str],
) -> Row | None:
    """A row that was not drawn yet: every objective of the pool once, then again in other words; None if all are known."""
    for _ in range(2 * len(pool)):
        if not waiting:
            waiting += rng.sample(list(pool), len(pool))
        objective = waiting.pop()
        sides = [target for target in TARGETS if objective.slots(target)]
        target = sides[0] if len(sides) == 1 or rng.random() >= borderline else sides[1]
        found = _attack(bank, held, objective, style, target, rng)
        if found is not None and found[1] not in seen:
            seen.add(found[1])
            return found[0]
    return None


def _turns(template: str | list[str]) -> list[str]:
    return [template] if isinstance(template, str) else template


def misspell(text: str, rng: random.Random) -> str:
    """A third of the words of four letters or more, one at least: two letters swapped, one dropped, or one doubled."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if sum(map(str.isalpha, word)) >= 4]
    for i in rng.sample(long, max(1, len(long) // 3)) if long else []:
        word = words[i]
        at = rng.choice([k for k in range(1, len(word) - 1) if word[k].isalpha() and word[k + 1].isalpha()] or [1])
        changed = (word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:])  # fmt: skip
        words[i] = rng.choice([other for other in changed if other != word])
    return " ".join(words)


def digits(text: str, _rng: random.Random) -> str:
    """Letters as the digits that look like them."""
    return text.translate(str.maketrans("aeiotAEIOT", "4310743107"))


TRANSFORMS: Mapping[str, Callable[[str, random.Random], str]] = {
    "none": lambda text, _: text,
    "misspell": misspell,
    "digits": digits,
}
