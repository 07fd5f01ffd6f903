"""Safety preprompts (paper 4.2.4, Table 39): what the system message says while context distillation samples.

    generic    a wording with adjectives and a noun put in: "You are a responsible and wise assistant."
    template   a wording of the prompt's risk category, with the template that its answer should follow

A bank is a YAML file that users extend (the keys stand at the head of `preprompts/general.yaml`). Where a dialogue has a
system message already, the preprompt stands in front of it, in the same message.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from ayni.config import Settings
from ayni.text.attack_bank import slots_of
from ayni.text.bank_file import parse, text_of
from ayni.text.native import Message

BANKS = ("general", "words")  # that come with Ayni: for real models; for the embedded world
SLOTS = ("a", "b", "noun")  # two different adjectives, and a noun
EXAMPLE = "ayni/text/preprompts/general.yaml"
Text = Annotated[str, Field(min_length=1)]


class Preprompts(Settings):
    adjectives: list[Text] = Field(default=[])
    nouns: list[Text] = Field(default=[])
    generic: list[Text] = Field(default=[])
    categories: dict[str, Annotated[list[Text], Field(min_length=1)]] = Field(default={})

    @field_validator("generic", "categories")
    @classmethod
    def _known_slots(cls, given: list[str] | dict[str, list[str]]) -> list[str] | dict[str, list[str]]:
        for wording in given if isinstance(given, list) else (text for texts in given.values() for text in texts):
            if unknown := sorted(slots_of(wording) - set(SLOTS)):
                raise ValueError(f"{wording!r} has the slot {{{unknown[0]}}}; known: {{a}}, {{b}}, {{noun}}")
        return given

    @model_validator(mode="after")
    def _something(self) -> Preprompts:
        if not any((self.adjectives, self.nouns, self.generic, self.categories)):
            raise ValueError(f"the bank is empty; give some of {', '.join(Preprompts.model_fields)}")
        return self

    def wordings(self, category: str | None) -> list[str]:
        """Of a risk category; None: the generic ones. Empty where the bank has none."""
        return self.generic if category is None else self.categories.get(category, [])

    def worded(self, category: str | None, rng: random.Random) -> str:
        """One preprompt, its adjectives and its noun drawn."""
        wording = rng.choice(self.wordings(category))
        slots = dict(zip(("a", "b"), rng.sample(self.adjectives, min(2, len(self.adjectives)))))
        return wording.format(**slots, **({"noun": rng.choice(self.nouns)} if self.nouns else {}))


def load_preprompts(names: Sequence[str]) -> Preprompts:
    """The banks joined: names of BANKS, or YAML files. ValueError names the file and, inside it, line and mistake."""
    banks = [_load(name) for name in names]
    joined = Preprompts(
        adjectives=_distinct([word for bank in banks for word in bank.adjectives]),
        nouns=_distinct([word for bank in banks for word in bank.nouns]),
        generic=_distinct([text for bank in banks for text in bank.generic]),
        categories={name: texts for bank in banks for name, texts in bank.categories.items()},
    )
    needs = {"a": len(joined.adjectives) >= 1, "b": len(joined.adjectives) >= 2, "noun": bool(joined.nouns)}
    for wording in (*joined.generic, *(text for texts in joined.categories.values() for text in texts)):
        if missing := sorted(slot for slot in slots_of(wording) if not needs[slot]):
            wanted = "a noun" if missing[0] == "noun" else "two adjectives"
            raise ValueError(
                f"{', '.join(names)}: {wording!r} needs {wanted} for {{{missing[0]}}}, and the bank has too few; add them, or join "
                "a bank that has some (--bank general --bank yours.yaml)"
            )
    return joined


def _load(name: str) -> Preprompts:
    if name in BANKS:
        text = (files("ayni.text") / "preprompts" / f"{name}.yaml").read_text(encoding="utf-8")
        return parse(text, name, Preprompts, EXAMPLE)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"{name}: no such bank of preprompts; give a YAML file, or one of {', '.join(BANKS)}")
    return parse(text_of(path), name, Preprompts, EXAMPLE)


def _distinct(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def with_preprompt(messages: Sequence[Message], preprompt: str) -> list[Message]:
    """The dialogue under a preprompt: as its system message, or in front of the one that it has."""
    if messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{preprompt}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": preprompt}, *messages]
