"""What a judge is asked, as data (`judge_prompts/*.yaml`, or a user's file), and its reply read strictly.

A reply counts if it holds one verdict in double square brackets, as the file lists them. Everything else (none, two that
differ, an unlisted one) is unparsable: it is counted and reported, never guessed.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, field_validator

from ayni.config import Settings
from ayni.text.native import Message

GRADE = 3  # the largest: the paper's seven points are -3 ... 3
Grade = Annotated[int, Field(ge=-GRADE, le=GRADE)]
SLOTS = ("question", "first", "second")
_SLOT = re.compile(r"\{(" + "|".join(SLOTS) + r")\}")
_VERDICT = re.compile(r"\[\[([^\[\]]*)\]\]")


class JudgePrompt(Settings):
    system: str = ""
    user: str
    verdicts: Annotated[dict[str, Grade], Field(min_length=2)]

    @field_validator("user")
    @classmethod
    def _has_all_slots(cls, user: str) -> str:
        missing = [slot for slot in SLOTS if f"{{{slot}}}" not in user]
        if missing:
            raise ValueError(f"{{{missing[0]}}} does not stand in it")
        return user

    @field_validator("verdicts")
    @classmethod
    def _fair(cls, verdicts: dict[str, int]) -> dict[str, int]:
        """What can be said for the first answer can be said for the second."""
        lonely = sorted(grade for grade in verdicts.values() if -grade not in verdicts.values())
        if lonely:
            raise ValueError(f"there is a verdict of {lonely[0]} but none of {-lonely[0]}")
        return verdicts

    def messages(self, question: str, first: str, second: str) -> list[Message]:
        """Slots are filled once: braces inside an answer stay text."""
        texts = dict(zip(SLOTS, (question, first, second)))
        asked: Message = {"role": "user", "content": _SLOT.sub(lambda found: texts[found[1]], self.user)}
        return [{"role": "system", "content": self.system}, asked] if self.system else [asked]

    def grade(self, reply: str) -> int | None:
        """How much better the first answer is; None where the reply is no verdict."""
        said = {text.strip() for text in _VERDICT.findall(reply)}
        return self.verdicts.get(said.pop()) if len(said) == 1 else None


def known_prompts() -> list[str]:
    folder = files("ayni.evals") / "judge_prompts"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_judge_prompt(name: str) -> JudgePrompt:
    """One that comes with Ayni by its name, or a YAML file; ValueError names the file, the key and the mistake."""
    if name in known_prompts():
        text = (files("ayni.evals") / "judge_prompts" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = _text(Path(name))
    else:
        raise ValueError(f"{name}: no such judge prompt; give a YAML file, or one of {', '.join(known_prompts())}")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ValueError(f"{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name}: expected the keys system, user and verdicts")
    try:
        return JudgePrompt(**values)
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise ValueError(f"{name}: keys must be text: system, user, verdicts") from None
        mistakes = [f"{'.'.join(map(str, m['loc']))}: {m['msg'].removeprefix('Value error, ')}" for m in error.errors()]
        raise ValueError(f"{name}: {'; '.join(mistakes)}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None
