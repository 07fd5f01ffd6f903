"""lm-eval's `local-completions` against `ayni serve`, beside lm-eval's own `hf` model on the same directory.

    .venv/bin/python -m pytest tests/peers/test_lm_eval.py -rP

Three tasks of local JSONL files: multiple choice (echoed log-probabilities), rolling log-likelihood, and generation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ayni.model.hugging_face import read_settings
from bench.environments import run_peer

from .serving import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TOLERANCE = 1e-3  # nats, of a whole continuation
QUESTIONS = [
    ("The capital of France is", ["Paris", "Rome", "Madrid", "Berlin"]),
    ("The opposite of hot is", ["cold", "warm", "blue", "loud"]),
    ("Two plus two is", ["four", "five", "twenty-two", "a number between three and five, namely four"]),
    ("Water is made of hydrogen and", ["oxygen", "iron", "helium", "salt"]),
    ("A baby cat is called a", ["kitten", "puppy", "calf", "foal"]),
    ("The sun rises in the", ["east", "west", "north", "evening"]),
    ("Das Gegenteil von groß ist", ["klein", "grün", "Straße", "übermäßig"]),
    ("日本の首都は", ["東京", "大阪", "パリ", "🍣"]),
    ("for i in range(3):\n   ", ["print(i)", "return", "import os", "\tpass"]),
    ("Bananas are usually", ["yellow", "purple", "square", "made of glass"]),
    ("The month after March is", ["April", "May", "February", "Monday"]),
    ("She said:", ['"Hello," and left.', "'", "…", "<b>bold</b>"]),
]
PASSAGES = [
    "The lighthouse keeper wound the clock each evening, and each morning it had stopped.",
    "Tea is prepared by pouring hot water over leaves.\nIt is drunk in many countries — with milk, or without.",
    "Straße, naïve, façade, 東京, 🙂.",
    "one",
]
STARTS = [
    "Q: What is the capital of Italy?\nA:",
    "Q: What colour is the sky?\nA:",
    "Once upon a time",
    "The first five prime numbers are",
    "Zutaten: Mehl, Zucker,",
    "My name is",
]
DATA = {
    "peer_choices": [{"text": text, "options": options, "gold": 0} for text, options in QUESTIONS],
    "peer_passages": [{"text": text} for text in PASSAGES],
    "peer_starts": [{"text": text, "gold": ""} for text in STARTS],
}
TASKS: dict[str, dict[str, Any]] = {
    "peer_choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "peer_passages": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "byte_perplexity"}],
    },
    "peer_starts": {
        "output_type": "generate_until",
        "doc_to_text": "text",
        "doc_to_target": "gold",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@dataclass(frozen=True)
class Tasks:
    """A directory with the tasks' definitions and data, and a home of its own for what lm-eval caches."""

    home: Path

    def write(self) -> None:
        for name, task in TASKS.items():
            data = self.home / f"{name}.jsonl"
            data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in DATA[name]))
            source = {
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data)}},
                "test_split": "test",
            }
            (self.home / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **source, **task}))

    def run(self, out: str, kind: str, arguments: dict[str, Any], batch_size: int) -> dict[str, list[Any]]:
        """What the model said to each task's rows, in their order."""
        joined = ",".join(f"{key}={value}" for key, value in arguments.items())
        command = ["-m", "lm_eval", "run", "--model", kind, "--model_args", joined, "--tasks", ",".join(TASKS)]
        command += ["--include_path", str(self.home), "--output_path", str(self.home / out), "--log_samples"]
        command += ["--batch_size", str(batch_size), "--device", "cpu"]
        done = run_peer("lm-eval", *command, timeout=1500, HF_HOME=str(self.home / "hf"))
        assert done.returncode == 0, done.stderr[-4000:]
        return {task: samples(self.home / out, task) for task in TASKS}


def samples(directory: Path, task: str) -> list[Any]:
    (file,) = directory.rglob(f"samples_{task}_*.jsonl")
    rows = sorted(map(json.loads, file.read_text().splitlines()), key=lambda row: row["doc_id"])
    return [row["filtered_resps"] for row in rows]


@pytest.fixture(scope="module", params=["smollm2", "tiny"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    tasks = Tasks(tmp_path_factory.mktemp("lm-eval"))
    tasks.write()
    return tasks


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def reference(model: Path, tasks: Tasks) -> dict[str, list[Any]]:
    """lm-eval's `hf` model: transformers, in fp32. No BOS, since `local-completions` with a remote tokenizer sends none."""
    return tasks.run(
        f"hf-{model.name}", "hf", {"pretrained": model, "dtype": "float32", "add_bos_token": False}, batch_size=1
    )


@pytest.mark.parametrize(
    ("tokenizer", "concurrent", "batch_size"), [("huggingface", 1, 4), ("remote", 4, 1)], ids=["local", "remote"]
)
def test_numbers_over_http_are_those_of_transformers(
    model: Path,
    tasks: Tasks,
    server: Server,
    reference: dict[str, list[Any]],
    tokenizer: str,
    concurrent: int,
    batch_size: int,
) -> None:
    arguments = {
        "model": server.model,
        "base_url": f"{server.url}/v1/completions",
        "tokenizer_backend": tokenizer,
        "num_concurrent": concurrent,
        "max_length": min(2048, read_settings(model).max_seq_len),
        "max_retries": 1,
        **({"tokenizer": model} if tokenizer == "huggingface" else {}),
    }
    found = tasks.run(f"{tokenizer}-{model.name}", "local-completions", arguments, batch_size)

    choices = list(zip(found["peer_choices"], reference["peer_choices"]))
    pairs = [pair for mine, theirs in choices for pair in zip(mine, theirs)]
    worst = max(abs(float(mine[0]) - float(theirs[0])) for mine, theirs in pairs)
    picked = [[max(range(4), key=lambda i: float(row[i][0])) for row in rows] for rows in zip(*choices)]
    greedy = sum(mine[1] == theirs[1] for mine, theirs in pairs)
    rolling = list(zip(found["peer_passages"], reference["peer_passages"]))
    furthest = max(abs(float(mine[0]) - float(theirs[0])) for mine, theirs in rolling)
    texts = list(zip(found["peer_starts"], reference["peer_starts"]))
    same = sum(mine == theirs for mine, theirs in texts)
    print(
        f"lm-eval, {model.name}, {tokenizer} tokenizer: {len(pairs)} log-likelihoods within {worst:.1e} of hf's, "
        f"{sum(a == b for a, b in zip(*picked))} of {len(choices)} choices and {greedy} of {len(pairs)} greedy marks "
        f"equal; rolling within {furthest:.1e}; {same} of {len(texts)} generated texts identical"
    )
    assert worst < TOLERANCE
    assert furthest < TOLERANCE
    assert picked[0] == picked[1]
    assert greedy == len(pairs)
    assert [mine for mine, _ in texts] == [theirs for _, theirs in texts]
