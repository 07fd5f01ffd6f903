"""`ayni eval --suite` beside lm-eval's own `hf` model: the same questions, the same choices, in fp32.

    .venv/bin/python -m pytest tests/peers/test_suites.py -rP

The extra `eval` is installed beside our packages (`bench.environments.overlay`); `hf` runs in the peer environment of lm-eval.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ayni.evals import evaldata
from ayni.evals.harness import TASKS
from ayni.evals.tasks.points import programs
from ayni.text.sources import read_jsonl
from bench.environments import OFFLINE, overlay, run_peer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SETS = ("piqa", "boolq", "openbookqa")
ROWS = 70  # of each set
SAME = 0.995  # of the choices


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


def theirs(model: Path, data: Path, home: Path) -> dict[str, list[int]]:
    """What lm-eval's `hf` chooses, from the very task files."""
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
    found = {}
    for name in SETS:
        (file,) = (home / "out").rglob(f"samples_ayni_{name}_*.jsonl")
        samples = sorted(map(json.loads, file.read_text().splitlines()), key=lambda row: row["doc_id"])
        found[name] = [chosen([answer for [answer] in row["resps"]]) for row in samples]
    return found


def chosen(answers: list[Any]) -> int:
    log_probs = [float(log_prob) for log_prob, _ in answers]
    return log_probs.index(max(log_probs))


def test_choices_are_those_of_transformers(smollm2: Path, data: Path, tmp_path: Path) -> None:
    ours: dict[str, list[int]] = {}
    for name, rows in (("commonsense", ("piqa", "openbookqa")), ("reading", ("boolq",))):
        done = suite(smollm2, name, tmp_path / name, data, "--limit", str(ROWS))
        assert done.returncode == 0, done.stderr[-4000:]
        for task in rows:
            ours[task] = [chosen(row["answers"]) for row in read_jsonl(tmp_path / name / "items" / f"{task}.jsonl")]
    home = tmp_path / "theirs"
    home.mkdir()
    reference = theirs(smollm2, data, home)
    pairs = [pair for name in SETS for pair in zip(ours[name], reference[name], strict=True)]
    same = sum(mine == other for mine, other in pairs)
    print(f"{same} of {len(pairs)} choices are those of lm-eval's hf model, fp32")
    assert len(pairs) == ROWS * len(SETS)
    assert same / len(pairs) >= SAME


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
