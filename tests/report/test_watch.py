"""`ayni watch`: what a run's files say while it works, and that looking at them changes nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from ayni import status, telemetry
from ayni.report.watch import BLOCKS, Seen, frame, look, spark, watch
from tests.conftest import ayni

GONE = 2**22 + 1  # above Linux's largest process id


def drawn(seen: Seen, height: int = 50) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(frame(seen, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def at_work(tmp_path: Path) -> Path:
    """A run in its pretraining: two stages done, forty steps of the third logged, its last line torn."""
    run = tmp_path / "run"
    logs = run / ".base.partial" / "logs"
    logs.mkdir(parents=True)
    telemetry.record_timing(run, "data", 8.2, 2**30)
    telemetry.record_timing(run, "tokenizer", 3.4, 2**30)
    rows = [{"step": i, "loss": 6.5 - 0.1 * i, "lr": 0.003, "tokens_per_second": 9100.0} for i in range(1, 41)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (logs / "metrics.jsonl").write_text(text + '{"step": 41, "lo')
    return run


def test_a_stage_shows_its_bar_its_curves_and_its_time(at_work: Path) -> None:
    with status.stage(at_work, "base", "Pretraining"), telemetry.progress("pretraining", 40_000) as bar:
        time.sleep(0.01)
        status._written = 0.0  # as if a second had passed
        bar.advance(10_000, loss=2.5)
        text = drawn(look(at_work))
    assert "● Pretraining   base, 0:00" in text
    assert "10k/40k tokens" in text
    assert "loss 2.5" in text
    loss = next(line for line in text.splitlines() if line.strip().startswith("loss"))
    assert loss.split()[1][0] == BLOCKS[-1]
    assert loss.split()[1][-1] == BLOCKS[0]
    assert loss.endswith("6.4 → 2.5") or "6.4 → 2.5" in loss
    assert "tokens per second" in text
    assert "✓  data" in text
    assert "2 stages done" in text


def test_a_run_that_says_nothing_of_itself_is_seen_by_its_partial_directory(at_work: Path) -> None:
    seen = look(at_work)
    assert (seen.stage, seen.over, len(seen.rows)) == ("base", "", 40)
    assert "6.4 → 2.5" in drawn(seen)


def test_many_stages_fold_into_one_line(at_work: Path) -> None:
    for i in range(30):
        telemetry.record_timing(at_work, f"stage-{i}", 60.0, 2**30)
    text = drawn(look(at_work), height=24)
    assert len(text.splitlines()) <= 24
    assert "24 earlier stages" in text
    assert "stage-29" in text
    assert "32 stages done" in text


def test_the_end_is_told_from_a_process_that_is_gone(at_work: Path) -> None:
    with status.stage(at_work, "base", "Pretraining"):
        found = json.loads((at_work / status.FILE).read_text())
    (at_work / status.FILE).write_text(json.dumps({**found, "pid": GONE}))
    assert "its process is gone" in drawn(look(at_work))
    (at_work / status.FILE).write_text(json.dumps({**found, "pid": GONE, "host": "elsewhere"}))
    assert look(at_work).over == ""
    status.finish(at_work)
    assert "finished: " in drawn(look(at_work))


def test_watching_ends_with_the_run(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("ayni.report.watch.results_console", Console(file=out, width=100, color_system=None))
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            status.finish(at_work)

    before = signal.getsignal(signal.SIGINT)
    try:
        watch(at_work, every=0.5, wait=wait)
    finally:
        signal.signal(signal.SIGINT, before)
    assert looks == [0.5] * 3
    assert "finished: " in out.getvalue()


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with status.stage(tmp_path / "not" / "there", "base", "Pretraining"), telemetry.progress("x", 2) as bar:
        status._written = 0.0
        bar.advance(1)
    assert status.read(tmp_path / "not" / "there") == {}


def test_other_ranks_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with status.stage(tmp_path, "base", "Pretraining"):
        assert not (tmp_path / status.FILE).exists()


@pytest.mark.parametrize(
    ("values", "text"),
    [([1.0], "▁"), ([0.0, 1.0], "▁█"), ([2.0, 2.0, 2.0], "▁▁▁"), ([0.0, 0.0, 4.0, 4.0, 8.0, 8.0], "▁▅█")],
)
def test_spark(values: list[float], text: str) -> None:
    assert spark(values, width=3) == text


def files(run: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")}


def test_once_on_a_finished_run_says_so_and_touches_nothing(smoke_run: Path) -> None:
    before = files(smoke_run)
    done = ayni("watch", smoke_run, "--once")
    assert done.returncode == 0, done.stderr
    assert "finished: " in done.stdout
    stages = json.loads((smoke_run / "timings.json").read_text())["stages"]
    assert f"{len(stages)} stages done" in done.stdout
    assert files(smoke_run) == before


def test_no_such_run_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = ayni("watch", tmp_path / "nowhere", "--once")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "no such directory" in done.stderr


def test_ctrl_c_leaves_the_run_alone(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("ayni.report.watch.results_console", Console(file=out, width=200, color_system=None))
    with status.stage(at_work, "base", "Pretraining"):  # this very process is "the run"
        before = files(at_work), signal.getsignal(signal.SIGINT)
        try:
            watch(at_work, wait=lambda _: os.kill(os.getpid(), signal.SIGINT))
        finally:
            signal.signal(signal.SIGINT, before[1])
    assert f"no longer watching; the run goes on. Again: ayni watch {at_work}" in out.getvalue()
    assert files(at_work) == before[0]
