"""Banks of attacks: risk categories and attack styles (paper 4.2.1) as data that users extend.

A bank is a YAML file that users extend (the keys stand at the head of `attacks/general.yaml`): objectives, each with its
risk category, and styles, each a set of templates around a request, a transformation of it, or turns of a dialogue.
For an objective a bank may hold a borderline look-alike: a harmless request in nearly the same words.
"""

from __future__ import annotations

import string
import zlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ayni.config import Settings
from ayni.plugins import plugin
from ayni.text.bank_file import parse, text_of
from ayni.text.native import Message

Row = dict[str, Any]
Target = Literal["harmful", "borderline"]
Slots = dict[str, str]
BANKS = ("general",)  # that come with Ayni as files; other names are plug-ins of the group `ayni.attacks`
WHOLE = "{q}"


@lru_cache(maxsize=4096)
def slots_of(template: str) -> frozenset[str]:
    """The names in braces; ValueError for what is not a plain name."""
    found = set()
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is not None:
            if not name.isidentifier() or spec or conversion:
                raise ValueError(f"{template!r}: write {{name}} for a slot, and {{{{ }}}} for braces that are text")
            found.add(name)
    return frozenset(found)


class Style(Settings):
    """A way to attack. A template is a text around {q}, or the turns of a dialogue: user, assistant, ..., user."""

    vector: str = ""  # the paper's name for the kind of attack; empty: none, the request as it is
    templates: list[str | list[str]] = Field(default=[WHOLE], min_length=1)
    transform: Literal["none", "misspell", "digits"] = "none"  # of {q}, by the seed
    held_out: bool = False

    @field_validator("templates")
    @classmethod
    def _dialogues(cls, templates: list[str | list[str]]) -> list[str | list[str]]:
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
    before: list[Message] = Field(default=[])  # of the dialogue that leads to it
    group: str = ""  # objectives of one group are held out together; empty: its id
    meta: dict[str, Any] = Field(default={})  # joins the row's; what a judge needs to know
    meta_borderline: dict[str, Any] = Field(default={})
    same: list[str] = Field(default=[])  # keys of meta: a prompt that has them all equal asks for the same thing

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
    requests: list[str] = Field(default=[])  # wordings of a request around an objective's slots
    styles: dict[str, Style] = Field(default={})
    objectives: list[Objective] = Field(default=[])
    escalations: list[str] = Field(default=[WHOLE])  # what the user says next where an attack was refused
    rewrites: list[str] = Field(default=[])  # how a model is asked to word an attack anew, around {text}
    held_out_categories: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _slots(self) -> Bank:
        known = {"q"} | {slot for o in self.objectives for t in TARGETS for slot in o.slots(t)}
        for name, style in self.styles.items():
            for text in (turn for template in style.templates for turn in turns_of(template)):
                if self.objectives and (unknown := slots_of(text) - known):
                    raise ValueError(f"style {name}: {text!r} needs {min(unknown)!r}, which no objective has")
        for text in (*self.requests, *self.escalations):
            slots_of(text)
        if any("text" not in slots_of(text) for text in self.rewrites):
            raise ValueError("a rewrite needs the slot {text}, the attack to be worded anew")
        return self


TARGETS: tuple[Target, ...] = ("harmful", "borderline")


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
        return with_styles(read_bank(text_of(path), str(path)))
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ValueError(f"{path}: no such bank of attacks; give a YAML file, or one of {', '.join(BANKS)}")
    return with_styles(named(Bank(**plugin("attacks", str(name))()), str(name)))


def read_bank(text: str, name: str) -> Bank:
    return named(parse(text, name, Bank, "ayni/text/attacks/general.yaml"), name)


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


def turns_of(template: str | list[str]) -> list[str]:
    """The turns of a dialogue; a text is one."""
    return [template] if isinstance(template, str) else template


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
