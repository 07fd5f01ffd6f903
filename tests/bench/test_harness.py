"""The bench's harness on workers that only pretend: choices, medians, goals, resuming, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench.measure import measure
from bench.process import Worker, WorkerFailed, interpreter
from bench.report import write_results, write_table
from bench.state import State
from bench.workload import Against, Side, Workload

FAKE = str(Path(__file__).with_name("fake_worker.py"))


@pytest.fixture(autouse=True)
def no_try_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_RUNS", raising=False)
    monkeypatch.delenv("BENCH_TINY", raising=False)


def side(name: str, **setup: Any) -> Side:
    return Side(name, FAKE, setup=setup)


def workload(**changes: Any) -> Workload:
    ours = side("ayni", seconds=[1.0, 2.0, 5.0])
    peer = side("peer", seconds=[3.0, 3.0, 20.0])
    return replace(Workload("race", "laps/s", ours, (Against(peer, goal=2.0),)), **changes)


def test_medians_and_the_paired_ratio(tmp_path: Path) -> None:
    (row,) = measure(workload(), tmp_path)["rows"]
    assert row["name"] == "race/peer"
    assert row["ours_runs"] == [10.0, 5.0, 2.0]
    assert (row["ours"], row["peer"]) == (5.0, 10 / 3)
    assert row["ratio"] == 3.0  # the median of 3, 1.5 and 4
    assert row["met"]
    assert row["extra"]["peer_facts"] == {"answer": 42}
    assert row["extra"]["peak_memory_ours"] > 1e6


def test_a_goal_that_is_missed(tmp_path: Path) -> None:
    peer = side("peer", seconds=1.0)
    (row,) = measure(workload(peers=(Against(peer, goal=2.0),)), tmp_path)["rows"]
    assert row["ratio"] == 0.5
    assert not row["met"]


def test_memory_can_be_part_of_the_goal(tmp_path: Path) -> None:
    peer = side("peer", seconds=100.0)
    peers = (Against(peer, goal=2.0, memory_goal=0.1),)
    (row,) = measure(workload(peers=peers), tmp_path)["rows"]
    assert row["ratio"] > 2.0
    assert not row["met"]  # both need what Python needs


def test_the_fastest_candidate_stays(tmp_path: Path) -> None:
    candidates = ({"seconds": 8.0}, {"fails": True}, {"seconds": 4.0}, {"seconds": 6.0})
    peer = Side("peer", FAKE, candidates=candidates, beside=({"seconds": 1.0},))
    heir = Side("heir", FAKE, setup={"seconds": 9.0}, inherits="peer")
    goals = (Against(peer, goal=1.0), Against(heir, goal=1.0))
    first, second = measure(workload(peers=goals), tmp_path)["rows"]
    assert first["peer"] == second["peer"] == 10 / 4
    tried = first["extra"]["peer_tried"]
    assert [found.get("rate") for found in tried] == [10 / 8, None, 10 / 4, 10 / 6, 10.0]
    assert "cannot run" in tried[1]["error"]
    assert [found["eligible"] for found in tried] == [True, True, True, True, False]
    assert "seconds=4.0" in first["settings"]


def test_a_side_without_a_candidate_that_works(tmp_path: Path) -> None:
    peer = Side("peer", FAKE, candidates=({"fails": True}, {"fails": True, "nth": 2}))
    with pytest.raises(WorkerFailed, match="no candidate worked"):
        measure(workload(peers=(Against(peer, goal=1.0),)), tmp_path)


def test_other_work_is_no_comparison(tmp_path: Path) -> None:
    def check(facts: dict[str, Any]) -> None:
        if facts["ayni"]["answer"] != facts["peer"]["answer"]:
            raise ValueError("the answers differ")

    measure(workload(check=check), tmp_path)
    peer = side("peer", seconds=1.0, answer=43)
    with pytest.raises(ValueError, match="the answers differ"):
        measure(workload(check=check, peers=(Against(peer, goal=1.0),)), tmp_path)


def test_a_worker_that_dies_says_what_it_said(tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text("import sys\nprint('out of luck', file=sys.stderr)\nsys.exit(3)\n")
    worker = Worker(script, interpreter(None), tmp_path / "log")
    with pytest.raises(WorkerFailed, match="out of luck"):
        worker.ask({"setup": {}})
    worker.close()


def test_finished_rows_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [workload(), workload(name="other", say="measured later")]
    monkeypatch.setattr(command, "workloads", lambda: rows)
    assert command.main(["--out", str(tmp_path), "--only", "race"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["race/peer"]
    assert results["missing"] == ["other/peer"]
    assert "| other/peer | | | | | | not measured" in (tmp_path / "RESULTS.md").read_text()

    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured again"))
    assert command.main(["--out", str(tmp_path), "--only", "race/peer"]) == 0
    assert command.main(["--out", str(tmp_path), "--report"]) == 0


def test_a_failed_row_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = workload(name="broken", peers=(Against(side("peer", fails=True), goal=1.0),))
    monkeypatch.setattr(command, "workloads", lambda: [broken, workload()])
    assert command.main(["--out", str(tmp_path)]) == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["race/peer"]
    assert results["missing"] == ["broken/peer"]


def test_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--out", str(tmp_path), "--only", "no-such-row"]) == 2
    assert "no-such-row" in capsys.readouterr().err
    assert command.main(["--out", str(tmp_path), "--report"]) == 2
    assert "run `python -m bench` first" in capsys.readouterr().err
    monkeypatch.setenv("BENCH_TINY", "1")
    assert command.main(["--only", "train-4x512"]) == 2  # never into bench/ itself
    assert "try-out" in capsys.readouterr().err


def test_the_digest_follows_the_definition() -> None:
    digest = workload().digest()
    assert workload().digest() == digest
    assert workload(runs=5).digest() != digest
    assert workload(peers=(Against(side("peer", seconds=1.0), goal=2.0),)).digest() != digest


def test_rows_of_earlier_code_are_named(tmp_path: Path) -> None:
    one, other = workload(name="one"), workload(name="other")
    state = State(tmp_path / ".state")
    for place, (row, date) in enumerate([(one, "2026-01-01"), (other, "2026-01-02")]):
        measured = measure(row, state.logs)
        measured["rows"][0]["extra"] |= {"date": date, "code": f"code {place}"}
        state.write(row, measured)
    write_results(tmp_path, [one, other], state)
    assert "earlier code than the newest row: one/peer" in write_table(tmp_path).read_text()
