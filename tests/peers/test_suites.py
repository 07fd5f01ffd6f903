"""`ayni eval --suite` beside lm-eval's own `hf` model: the same questions, the same choices, in fp32.

    .venv/bin/python -m pytest tests/peers/test_suites.py -rP                    # AYNI_PEER_ROWS=50: fewer questions of each set

The extra `eval` is installed beside our packages (`bench.environments.overlay`); `hf` runs in the peer environment of lm-eval.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ayni.evals import evaldata
from ayni.evals.harness import TASKS
from ayni.evals.tasks.points import programs
from ayni.text.sources import read_jsonl
from bench.environments import OFFLINE, overlay, run_peer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SETS = ("piqa", "boolq", "openbookqa")
ROWS = int(os.environ.get("AYNI_PEER_ROWS", "200"))  # of each set
SAME = 0.995  # of the choices of each set
Choices = dict[str, dict[str, list[float]]]  # set -> question's id -> log-probability of each choice


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaldata.fetch(tmp_path_factory.mktemp("evaldata") / "data").path


def suite(model: Path, name: str, out: Path, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    beside = os.pathsep.join([str(overlay("eval")), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "ayni",
        "eval",
        str(model),
        "--suite",
        name,
        "--data",
        str(data),
        "--out",
        str(out),
    ]
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": beside, "HF_HOME": str(out.parent / "hf"), "COLUMNS": "140"}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=3000, check=False
    )


def theirs(model: Path, data: Path, home: Path) -> tuple[Choices, dict[str, list[str]]]:
    """What lm-eval's `hf` gives each choice, from the very task files; and what it was asked, prompt and choice as one text."""
    for name in SETS:
        settings = yaml.safe_load((TASKS / f"{name}.yaml").read_text())
        rows = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data / f"{name}.jsonl")}}}
        (home / f"{name}.yaml").write_text(
            yaml.safe_dump({**settings, "task": f"ayni_{name}", **rows, "test_split": "test"})
        )
    command = ["-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"]
    command += ["--tasks", ",".join(f"ayni_{name}" for name in SETS), "--include_path", str(home), "--limit", str(ROWS)]
    command += ["--output_path", str(home / "out"), "--log_samples", "--batch_size", "1", "--device", "cpu"]
    done = run_peer("lm-eval", *command, timeout=3000, HF_HOME=str(home / "hf"))
    assert done.returncode == 0, done.stderr[-4000:]
    found: Choices = {}
    asked: dict[str, list[str]] = {}
    for name in SETS:
        (file,) = (home / "out").rglob(f"samples_ayni_{name}_*.jsonl")
        samples = sorted(map(json.loads, file.read_text().splitlines()), key=lambda row: row["doc_id"])
        found[name] = {row["doc"]["id"]: [float(log_prob) for [[log_prob, _]] in row["resps"]] for row in samples}
        asked[name] = ["".join(request.values()) for row in samples for request in row["arguments"].values()]
    return found, asked


def first_best(log_probs: list[float]) -> int:
    return log_probs.index(max(log_probs))


def closeness(log_probs: list[float]) -> float:
    """Nats between the best choice and the next."""
    best, second = sorted(log_probs)[-1:-3:-1]
    return best - second


def test_choices_are_those_of_transformers(smollm2: Path, data: Path, tmp_path: Path) -> None:
    ours: Choices = {}
    our_words: dict[str, list[str]] = {}
    for name, rows in (("commonsense", ("piqa", "openbookqa")), ("reading", ("boolq",))):
        done = suite(smollm2, name, tmp_path / name, data, "--limit", str(ROWS))
        assert done.returncode == 0, done.stderr[-4000:]
        for task in rows:
            items = read_jsonl(tmp_path / name / "items" / f"{task}.jsonl")
            ours[task] = {row["id"]: [float(log_prob) for log_prob, _ in row["answers"]] for row in items}
            our_words[task] = [row["prompt"] + choice for row in items for choice in row["choices"]]
    home = tmp_path / "theirs"
    home.mkdir()
    reference, their_words = theirs(smollm2, data, home)
    for name in SETS:
        assert our_words[name] == their_words[name], f"{name}: another text was asked"
        assert list(ours[name]) == list(reference[name])
        assert len(ours[name]) == ROWS
        other = [key for key in ours[name] if first_best(ours[name][key]) != first_best(reference[name][key])]
        apart = max(
            abs(x - y) for key in ours[name] for x, y in zip(ours[name][key], reference[name][key], strict=True)
        )
        print(
            f"{name}: {ROWS - len(other)} of {ROWS} choices are those of lm-eval's hf model, fp32; log-probabilities {apart:.1e} apart at most"
        )
        for key in other:
            print(
                f"  {key}: ours {ours[name][key]}, theirs {reference[name][key]}, their two best {closeness(reference[name][key]):.1e} apart"
            )
        assert (ROWS - len(other)) / ROWS >= SAME, name


def test_a_suite_is_compared_with_another_model_and_kept_question_by_question(
    tiny: Path, data: Path, tmp_path: Path
) -> None:
    """The smoke recipe's model against itself, in chat format against plain: every suite's path is walked."""
    done = suite(tiny, "knowledge", tmp_path / "k", data, "--limit", "4", "--chat", "--against", str(tiny))
    assert done.returncode == 0, done.stderr[-4000:]
    assert "NQ-open: 4 of 3,610 rows" in done.stdout
    assert "5-shot, chat" in done.stdout
    assert "alignment tax:" in done.stdout
    items = read_jsonl(tmp_path / "k" / "items" / "nq_open.jsonl")
    assert len(items) == 4
    assert all(row["prompt"] and row["answers"] and row["gold"] for row in items)
    results = json.loads((tmp_path / "k" / "results.json").read_text())
    assert results["checkpoints"][0]["metrics"]["nq_open"]["n"] == 4
    [about] = results["tasks"]
    assert (about["rows"], about["of"], about["shots"], about["template"], about["source"]) == (
        4,
        3610,
        5,
        "chat",
        "pypi",
    )


def test_every_solution_of_human_eval_passes_its_own_tests(data: Path) -> None:
    """The gold of the set, and the sandbox: it forbids nothing that a solution needs."""
    rows = read_jsonl(data / "human_eval.jsonl")
    failed = [row["id"] for row in rows if programs(row, [[row["solution"]]])["pass_1"] < 1]
    print(f"{len(rows) - len(failed)} of {len(rows)} published solutions pass in the sandbox")
    assert len(rows) == 164
    assert not failed
