"""Shared by all rooms: the real command line, run as a user would run it, in a directory of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import CHROMIUM

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "recipes" / "smoke.yaml"


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "AYNI_QUIET": "1", "COLUMNS": "110", **extra}


def ayni(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs `python -m ayni ...` to its end."""
    command = [sys.executable, "-m", "ayni", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)


def killed_when(reached: Callable[[], bool], *arguments: str | Path, timeout: float = 240) -> None:
    """Starts `python -m ayni ...` and kills it, SIGKILL, as soon as `reached` holds."""
    command = [sys.executable, "-m", "ayni", *map(str, arguments)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + timeout
    while not reached():
        assert process.poll() is None, f"it ended before it could be killed: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "it never got there"
        time.sleep(0.002)
    process.kill()
    process.communicate()


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe, run once and never stopped; tests read it and leave it as it is."""
    directory = tmp_path_factory.mktemp("smoke") / "whole"
    done = ayni("run", SMOKE, "--out", directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium; tests that ask for it are marked `needs_chromium`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def fails() -> Callable[..., str]:
    """Runs a command that must end with exit code 2 and one clear message, never a traceback; returns the message."""

    def check(*arguments: str | Path) -> str:
        done = ayni(*arguments, timeout=120)
        assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ")
        return done.stderr

    return check
