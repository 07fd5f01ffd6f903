from __future__ import annotations

import itertools
import socket
import sys
import time
from pathlib import Path

import pytest

from ayni.evals import sandbox
from ayni.evals.sandbox import Limits, pass_at_k, run_program
from ayni.evals.tasks import points

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the sandbox is made of Linux's namespaces and Landlock"
)
QUICK = Limits(seconds=2, memory_bytes=1 << 29)


def test_a_program_passes_when_it_comes_to_its_end() -> None:
    assert run_program("import math, collections\nassert math.gcd(4, 6) == 2\nprint('seen by nobody')") == "passed"
    for wrong in ("assert 1 == 2", "def f(:", "raise SystemExit(0)", "import os; os._exit(0)", "exit()"):
        assert run_program(wrong) == "failed", wrong


def test_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        exec(connect)  # outside it works
        assert run_program(connect) == "failed"


def test_nothing_is_written_removed_or_started(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("as it was")
    for attempt in (
        f"open({str(kept)!r}, 'w').write('other')",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.rename({str(kept)!r}, {str(tmp_path / 'b')!r})",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.mkdir({str(tmp_path / 'folder')!r})",
        "open('here.txt', 'w').write('x')",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
    ):
        assert run_program(attempt) == "failed", attempt
    assert kept.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [kept]


def test_time_and_memory_have_ends() -> None:
    started = time.monotonic()
    assert run_program("while True: pass", QUICK) == "timeout"
    assert run_program("import time; time.sleep(60)", QUICK) == "timeout"
    assert time.monotonic() - started < 15
    assert run_program("x = bytearray(1 << 30)", QUICK) == "failed"


def test_other_processes_are_out_of_reach() -> None:
    assert run_program("import os; assert os.getpid() == 1") == "passed"
    assert run_program("import os; os.kill(os.getppid() or 99999, 9)") == "failed"


def test_without_a_sandbox_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = tmp_path / "jail.py"
    refusing.write_text("import sys; sys.stderr.write('namespaces: not permitted'); sys.exit(77)")
    monkeypatch.setattr(sandbox, "JAIL", refusing)
    with pytest.raises(ValueError, match=r"offers none .namespaces: not permitted"):
        run_program("pass")


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample() -> None:
    for n, c, k in ((5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (7, 1, 7)):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_points_of_programs() -> None:
    doc = {
        "prompt": "def double(x):\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "double",
    }
    answers = ["    return 2 * x\n", "    return x + 1\n", "    return x +\n", "    return x + x\n"]
    found = points.programs(doc, [answers])
    assert found == {"pass_1": 0.5, "pass_10": 1.0}
