"""Instructions that must hold for a whole dialogue, and how a program tells whether an answer keeps one (paper 3.3, A.3.5).

A bank is a YAML list that users extend (the keys stand at the head of `banks/general.yaml`). The paper's constraints are
hobbies, languages and public figures, also combined; formats and single words are ours, since a program can check them.
Every check reads one answer alone, and is strict: an answer that keeps the instruction in a way the check does not know
counts as broken.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ayni.config import Settings

BANKS = ("general", "words")  # that come with Ayni: for real models; for the embedded world
# Common short words that tell a language from its neighbours; an answer is in the language that has most of them.
FUNCTION_WORDS = {
    "english": "the and is are was were of to in that it for with as on you this have not be from they which will would",
    "french": "le la les des et est dans une un que qui pour pas vous nous je ce il elle sur avec sont au du ne plus ou",
    "spanish": "el los las y es en una un que por para con no se su del lo como más pero son muy está yo usted",
    "italian": "il lo gli e è di che un una per non con si del della sono mi ti ma come più anche nel alla questo",
    "german": "der die das und ist nicht ein eine zu den mit von auf für sich dem ich sie wir es auch als werden kann",
    "portuguese": "o os as e é de que um uma para não com em do da por se mais no na eu você são está ao mas",
}
_VOCABULARY = {name: frozenset(text.split()) for name, text in FUNCTION_WORDS.items()}
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")


class Values(Settings):
    trained: list[str | int] = Field(default=[])
    held_out: list[str | int] = Field(default=[])


class Entry(Settings):
    """One entry of a bank."""

    kind: str
    instruction: list[str] = Field(min_length=1)
    short: list[str] = Field(min_length=1)
    values: Values | None = None
    held_out: bool = False
    check: dict[str, str | int | bool] = Field(default={})


@dataclass(frozen=True)
class Constraint:
    """One instruction in all its wordings. `checks`: (name, argument); none: no program can tell."""

    kind: str
    name: str
    instruction: tuple[str, ...]
    short: tuple[str, ...]
    checks: tuple[tuple[str, str], ...]
    held_out: bool  # never trained by Ghost Attention

    def kept(self, answer: str) -> bool | None:
        """Does the answer keep it? None: no check."""
        return all(CHECKS[name](answer, argument) for name, argument in self.checks) if self.checks else None


def kept(constraints: Sequence[Constraint], answer: str) -> bool | None:
    """All of them that can be checked; None if none can."""
    known = [verdict for verdict in (constraint.kept(answer) for constraint in constraints) if verdict is not None]
    return all(known) if known else None


def worded(constraints: Sequence[Constraint], rng: random.Random, short: bool = False) -> str:
    """One wording of each, side by side: "Always act as Napoleon from now on.", shortened "Figure: Napoleon."."""
    return " ".join(rng.choice(one.short if short else one.instruction) for one in constraints)


def draw(bank: Sequence[Constraint], rng: random.Random, combined: bool = False) -> tuple[Constraint, ...]:
    """A constraint, kinds being equally likely; with `combined` two of different kinds, where the bank has two."""
    kinds = sorted({constraint.kind for constraint in bank})
    chosen = rng.sample(kinds, min(len(kinds), 2 if combined else 1))
    return tuple(rng.choice([constraint for constraint in bank if constraint.kind == kind]) for kind in chosen)


def load_banks(names: Sequence[str]) -> list[Constraint]:
    """The constraints of all banks: a name of BANKS, or a YAML file. ValueError names file, line and mistake."""
    return [constraint for name in names for constraint in _load(name)]


def _load(name: str) -> list[Constraint]:
    path = Path(name)
    if name in BANKS:
        text = (files("ayni.scoring") / "banks" / f"{name}.yaml").read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise ValueError(f"{name}: no such bank of constraints; give a YAML file, or one of {', '.join(BANKS)}")
    try:
        entries, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(entries, list) or not entries or not isinstance(root, yaml.SequenceNode):
        raise ValueError(f"{name}: expected a list of entries with the keys {', '.join(Entry.model_fields)}")
    found: list[Constraint] = []
    for entry, node in zip(entries, root.value):
        found += _constraints(entry, f"{name}, line {node.start_mark.line + 1}")
    return found


def _constraints(entry: Any, where: str) -> list[Constraint]:
    """An entry, once for each of its values."""
    if not isinstance(entry, dict):
        raise ValueError(
            f"{where}: expected an entry with the keys {', '.join(Entry.model_fields)}, found {entry!r:.60}"
        )
    try:
        checked = Entry(**entry)
    except ValidationError as error:
        first = error.errors()[0]
        keys = f"; known: {', '.join(Entry.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ValueError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}{keys}") from None
    for name, argument in checked.check.items():
        if name not in CHECKS:
            raise ValueError(f"{where}: unknown check {name!r}; known: {', '.join(CHECKS)}")
        _check_argument(name, checked, str(argument), where)
    of_values = [(value, True) for value in checked.values.held_out] if checked.values else [("", checked.held_out)]
    if checked.values:
        of_values = [(value, False) for value in checked.values.trained] + of_values
    if not of_values:
        raise ValueError(f"{where}: values names none; give some under trained or held_out, or leave values out")
    return [
        Constraint(
            kind=checked.kind,
            name=f"{checked.kind}: {value}" if checked.values else f"{checked.kind}: {checked.short[0]}",
            instruction=tuple(text.replace("{v}", str(value)) for text in checked.instruction),
            short=tuple(text.replace("{v}", str(value)) for text in checked.short),
            checks=tuple((name, str(argument).replace("{v}", str(value))) for name, argument in checked.check.items()),
            held_out=held_out,
        )
        for value, held_out in of_values
    ]


def _check_argument(name: str, entry: Entry, argument: str, where: str) -> None:
    """A wrong argument would make a check that no answer, or every answer, passes."""
    values = [*entry.values.trained, *entry.values.held_out] if entry.values else [""]
    for value in values:
        given = argument.replace("{v}", str(value))
        good = {
            "language": given.lower() in _VOCABULARY,
            "letters": given in ("upper", "lower"),
            "max_words": given.isdigit(),
            "max_sentences": given.isdigit(),
        }.get(name, bool(given.strip()))
        if not good:
            wanted = {"language": ", ".join(_VOCABULARY), "letters": "upper or lower"}.get(name, "a number")
            raise ValueError(f"{where}: check {name} cannot take {given!r}; expected {wanted}")


# ---- checks: (answer, argument) -> kept ------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Words and numbers, in small letters, without punctuation; an apostrophe inside a word stays."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def starts_with(answer: str, argument: str) -> bool:
    wanted = words(argument)
    return words(answer)[: len(wanted)] == wanted


def ends_with(answer: str, argument: str) -> bool:
    wanted = words(argument)
    return words(answer)[-len(wanted) :] == wanted


def mentions(answer: str, argument: str) -> bool:
    """The words of the argument, side by side, anywhere."""
    said, wanted = words(answer), words(argument)
    return any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))


def in_language(answer: str, argument: str) -> bool:
    """Two function words of the language at least, and more than of any other that is known here."""
    said = words(answer)
    hits = {name: sum(word in known for word in said) for name, known in _VOCABULARY.items()}
    ours = hits.pop(argument.lower())
    return ours >= 2 and ours > max(hits.values())


def letters(answer: str, argument: str) -> bool:
    """All letters capital ones (`upper`) or small ones (`lower`), and one at least."""
    return answer.isupper() if argument == "upper" else answer.islower()


def max_words(answer: str, argument: str) -> bool:
    return 0 < len(words(answer)) <= int(argument)


def max_sentences(answer: str, argument: str) -> bool:
    found = [part for part in re.split(r"(?<=[.!?])\s+", answer.strip()) if words(part)]
    return 0 < len(found) <= int(argument)


def every_line_begins(answer: str, argument: str) -> bool:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return bool(lines) and all(line.startswith(argument) for line in lines)


def json_key(answer: str, argument: str) -> bool:
    """The whole answer is a JSON object with this single key."""
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == [argument]


CHECKS: Mapping[str, Callable[[str, str], bool]] = {
    "starts_with": starts_with,
    "ends_with": ends_with,
    "ends_with_mark": lambda answer, argument: answer.rstrip().endswith(argument),
    "mentions": mentions,
    "language": in_language,
    "emoji": lambda answer, _: _EMOJI.search(answer) is not None,
    "letters": letters,
    "max_words": max_words,
    "max_sentences": max_sentences,
    "every_line_begins": every_line_begins,
    "json_key": json_key,
}
