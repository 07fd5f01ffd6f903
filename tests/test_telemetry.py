"""Telemetry: what it writes survives being killed, and what it prints goes where it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ayni import telemetry
from ayni.telemetry import MetricsLog, machine_facts, progress, read_metrics, record_timing


def test_telemetry_imports_no_torch() -> None:
    code = "import sys, ayni.telemetry; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_metrics_log_round_trip_with_scalars_and_non_finite(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.log(step=0, loss=np.float32(0.5), tokens=np.int64(7), perplexity={"stories": 3.5, "forum": float("inf")})
        log.log(step=1, loss=float("nan"), note="a\u2028b")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().rstrip("\n").split("\n")]
    assert rows == [
        {"step": 0, "loss": 0.5, "tokens": 7, "perplexity": {"stories": 3.5, "forum": None}},
        {"step": 1, "loss": None, "note": "a\u2028b"},
    ]
    assert read_metrics(path) == rows


def test_metrics_row_is_on_disk_before_close(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.log(step=3, loss=1.0)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 3, "loss": 1.0}]
    log.close()


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', '{"step": 2, "name": "caf\xc3'])
def test_trap_16_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "loss": 3.0}\n{"step": 1, "loss": 2.0}\n' + torn.encode("latin-1"))
    assert [row["step"] for row in read_metrics(path)] == [0, 1]
    with MetricsLog(path) as log:
        log.log(step=2, loss=1.0)
    assert path.read_text() == '{"step": 0, "loss": 3.0}\n{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'


def test_trap_16_resumed_log_equals_the_one_never_killed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    with MetricsLog(whole) as log:
        for step in range(10):
            log.log(step=step, loss=1 / (step + 1))
    with MetricsLog(killed) as log:
        for step in range(7):
            log.log(step=step, loss=1 / (step + 1))
    with MetricsLog(killed, resume_step=4) as log:  # the training state that was saved last stood before step 4
        for step in range(4, 10):
            log.log(step=step, loss=1 / (step + 1))
    assert killed.read_bytes() == whole.read_bytes()


def test_broken_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": \n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_empty_log_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_timings_replace_a_stage_run_again_and_keep_order(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    for stage, seconds in (("sft", 1.0), ("reward", 2.0), ("sft", 3.5)):
        record_timing(run, stage, seconds, 1024)
    stages = json.loads((run / "timings.json").read_text())["stages"]
    assert [(row["stage"], row["seconds"], row["peak_bytes"]) for row in stages] == [
        ("sft", 3.5, 1024),
        ("reward", 2.0, 1024),
    ]
    assert [path.name for path in run.iterdir()] == ["timings.json"]


def test_machine_facts_are_plain_json() -> None:
    facts = json.loads(json.dumps(machine_facts()))
    assert {
        "cores",
        "threads",
        "cpu",
        "flags",
        "avx512",
        "bf16",
        "amx_bf16",
        "memory_bytes",
        "python",
        "platform",
        "torch",
    } <= set(facts)
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 2**28


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_peak_memory_sees_a_large_array_and_can_be_reset() -> None:
    telemetry.reset_peak_memory()
    before = telemetry.peak_memory_bytes()
    block = np.ones(30_000_000)  # 240 MB
    during = telemetry.peak_memory_bytes()
    assert during - before > 150_000_000
    del block
    telemetry.reset_peak_memory()
    assert telemetry.peak_memory_bytes() < during - 150_000_000


def test_plain_progress_without_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AYNI_QUIET", raising=False)
    monkeypatch.setattr(telemetry, "PLAIN_INTERVAL", 0.0)
    telemetry.heading("pretrain")
    with progress("training", total=4000) as bar:
        bar.advance(1000, loss=2.5)
        bar.note("saved [state]")
        with progress("evaluating", total=3, unit="rows") as inner:
            inner.advance(3)
        bar.advance(3000, loss=1.25)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "== pretrain"
    assert lines[1].startswith("  training: 1000/4000 tokens, ")
    assert "left, loss 2.5" in lines[1]
    assert lines[2] == "  saved [state]"
    assert lines[-1].startswith("  training: 4000 tokens, ")
    assert lines[-1].endswith("loss 1.25")
    assert sum("evaluating" in line for line in lines) == 1


@pytest.mark.parametrize("variable", [("AYNI_QUIET", "1"), ("RANK", "1")])
def test_quiet(variable: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable)
    monkeypatch.setattr(telemetry, "PLAIN_INTERVAL", 0.0)
    telemetry.heading("pretrain")
    with progress("training", total=None) as bar:
        bar.advance(5)
    assert capsys.readouterr() == ("", "")


def test_failed_work_leaves_no_line_that_says_it_was_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AYNI_QUIET", raising=False)

    def diverge() -> None:
        with progress("training", total=10) as bar:
            bar.advance(1)
            raise KeyError

    with pytest.raises(KeyError):
        diverge()
    assert capsys.readouterr().err == ""


def test_table_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.table(["checkpoint", "facts"], [["sft [1]", 0.91234567], ["base", None]])
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split() for line in out.splitlines() if "sft" in line or "base" in line] == [
        ["sft", "[1]", "0.9123"],
        ["base", "–"],
    ]


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (None, "–"),
        (1234, "1234"),
        (12_345, "12.3k"),
        (4_200_000, "4.2M"),
        (2e12, "2T"),
        (0.00012345, "0.0001234"),
        ("x", "x"),
        (True, "True"),
    ],
)
def test_short(figure: object, text: str) -> None:
    assert telemetry.short(figure) == text


def test_clock() -> None:
    assert [telemetry.clock(s) for s in (0, 7.4, 59.6, 750, 3750)] == ["0:00", "0:07", "1:00", "12:30", "1:02:30"]
