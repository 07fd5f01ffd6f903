"""What a user waits for before anything happens."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "scipy", "sklearn", "matplotlib", "pyarrow", "transformers", "tokenizers", "sentencepiece", "fastapi")
SLACK = 2.0  # the machine of a test is busy; the goals are 1 s and 0.3 s on a quiet one


def seconds(*arguments: str) -> float:
    """Best of three runs of this Python."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(
    ("arguments", "goal"),
    [(("-m", "ayni", "--help"), 1.0), (("-m", "ayni", "ppo", "--help"), 1.0), (("-c", "import ayni"), 0.3)],
    ids=["ayni --help", "ayni ppo --help", "import ayni"],
)
def test_start_up_takes_less_than(arguments: tuple[str, ...], goal: float) -> None:
    taken = seconds(*arguments)
    print(f"{' '.join(arguments)}: {taken:.2f} s, goal {goal}")
    assert taken < SLACK * goal


def test_the_command_line_imports_no_stage() -> None:
    """Commands import their stage when they run: `--help`, or a mistyped flag, waits for none of these."""
    code = f"import sys, ayni.cli; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
