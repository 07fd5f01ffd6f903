"""What a run says while it works: progress, headings, tables, metrics, timings, machine facts. It decides nothing.

Progress and narration go to standard error, results to standard output, so `ayni eval ... > table.txt` keeps the table
alone. `AYNI_QUIET=1` silences narration, and so does being any rank but the first under torchrun.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ayni import status
from ayni.artifacts import read_json, write_atomically, write_json

PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal to redraw
PLAIN_COLUMNS = 110  # width of tables written to a file or a pipe


def _console(to_stderr: bool) -> Console:
    stream = sys.stderr if to_stderr else sys.stdout
    known_width = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=to_stderr, highlight=False, width=None if known_width else PLAIN_COLUMNS)


results_console = _console(to_stderr=False)
progress_console = _console(to_stderr=True)
_displays: list[Progress] = []  # the live display, if one is up; a nested bar is a second line in it
_open_bars: list[ProgressBar] = []


def quiet() -> bool:
    """True if narration is off: AYNI_QUIET set, or a torchrun rank other than 0."""
    return os.environ.get("AYNI_QUIET", "") not in ("", "0") or os.environ.get("RANK", "0") != "0"


@contextmanager
def told_to(stream: TextIO) -> Iterator[None]:
    """Inside, narration and results of this process go to `stream`: the terminal belongs to somebody else."""
    global progress_console, results_console  # noqa: PLW0603
    before = progress_console, results_console
    progress_console = results_console = Console(file=stream, highlight=False, width=PLAIN_COLUMNS)
    try:
        yield
    finally:
        progress_console, results_console = before


def heading(text: str) -> None:
    """A stage begins."""
    if quiet():
        return
    if progress_console.is_terminal:
        progress_console.print(Rule(Text(text, style="bold"), align="left", style="dim"))
    else:
        progress_console.print(Text(f"== {text}"), soft_wrap=True)


def say(text: str) -> None:
    """One line (or a few) of narration. `text` is printed as it is: markup in it means nothing."""
    if not quiet():
        progress_console.print(Text(text), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a result table on standard output: first column left, the others right."""
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        drawn.add_column(Text(column), justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*(Text(short(cell)) for cell in row))
    show(drawn)


def show(*renderables: RenderableType) -> None:
    """Print finished results (rich renderables) on standard output; on the first rank only."""
    if os.environ.get("RANK", "0") == "0":
        for renderable in renderables:
            results_console.print(renderable)


def short(figure: object) -> str:
    """A figure as a reader wants it: 4 significant digits, thousands as k, M, B, T, nothing as a dash."""
    if figure is None:
        return "–"
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return str(figure)
    if not math.isfinite(figure):
        return str(figure)
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(figure) >= size:
            return f"{figure / (1e3 if letter == 'k' else size):.3g}{letter}"
    return str(figure) if isinstance(figure, int) else f"{figure:.4g}"


def clock(seconds: float) -> str:
    """0:07, 12:30, 1:02:30."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class ProgressBar:
    """What `progress` hands out. On a terminal a bar, elsewhere a line every ten seconds, when quiet nothing."""

    def __init__(self, description: str, total: float | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0.0
        self.figures: dict[str, Any] = {}
        self._started = self._printed = time.monotonic()
        self._task: TaskID | None = None
        self._display = _displays[-1] if _displays else None
        if self._display is not None:
            self._task = self._display.add_task(description, total=total, line="")

    def advance(self, n: float = 1, **figures: Any) -> None:
        """`n` more units are done; `figures` (loss=..., lr=...) replace those shown so far."""
        self.done += n
        self.figures.update(figures)
        if self._display is not None and self._task is not None:
            self._display.update(self._task, completed=self.done, line=self.line())
        elif not quiet() and time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self._printed = time.monotonic()
            say(f"  {self.description}: {self.line()}")
        status.show_bars([bar.state() for bar in _open_bars])

    def state(self) -> dict[str, Any]:
        """The bar as `ayni watch` draws it."""
        return {
            "name": self.description,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "line": self.line(),
        }

    def note(self, text: str) -> None:
        """A line above the bar that stays."""
        say(f"  {text}")

    def line(self, finished: bool = False) -> str:
        """Amount, throughput, time left (or taken, once finished) and the latest figures."""
        seconds = time.monotonic() - self._started
        speed = self.done / seconds if seconds > 0 else 0.0
        parts = [f"{short(self.done)}/{short(self.total)} {self.unit}"]
        if finished or not self.total:
            parts = [f"{short(self.done)} {self.unit}"]
        parts.append(f"{short(speed)}/s")
        if finished:
            parts.append(f"in {clock(seconds)}")
        elif self.total and speed > 0:
            parts.append(f"{clock((self.total - self.done) / speed)} left")
        return ", ".join(parts + [f"{name} {short(value)}" for name, value in self.figures.items()])


@contextmanager
def progress(description: str, total: float | None, unit: str = "tokens") -> Iterator[ProgressBar]:
    """`with progress("pretraining", total_tokens) as bar: bar.advance(n, loss=...)`.

    A bar opened while another is open shows below it and leaves nothing; the outer one leaves a line when it is done:
    amount, speed, time, last figures.
    """
    if not quiet() and progress_console.is_terminal and not _displays:
        columns = (TextColumn("  {task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[line]}"))
        _displays.append(Progress(*columns, console=progress_console, transient=True, refresh_per_second=5))
        _displays[-1].start()
    bar = ProgressBar(description, total, unit)
    _open_bars.append(bar)
    try:
        yield bar
    finally:
        _open_bars.remove(bar)
        if bar._display is not None and bar._task is not None:
            bar._display.remove_task(bar._task)
        if _displays and not _open_bars:
            _displays.pop().stop()
    if not _open_bars:
        say(f"  {description}: {bar.line(finished=True)}")


class MetricsLog:
    """Append-only `metrics.jsonl`: one JSON object a line, `step` first, flushed at once.

    `resume_step=N` drops rows of step N and later, which the resumed run writes anew. A torn last line (the process was
    killed while writing) is dropped either way.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            rows = read_metrics(self.path)
            kept = rows if resume_step is None else [row for row in rows if row["step"] < resume_step]
            text = "".join(_json_line(row) for row in kept)
            if text.encode() != self.path.read_bytes():
                write_atomically(self.path, text)
        self._file = self.path.open("a", encoding="utf-8")

    def log(self, step: int, **figures: Any) -> None:
        """Write one row. Non-finite figures become null; numpy and torch scalars become numbers."""
        self._file.write(_json_line({"step": step, **figures}))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics log; a torn last line is left out, any other broken line is an error."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n")
    rows = []
    for i, line in enumerate(lines if lines != [""] else []):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if i == len(lines) - 1:
                break
            raise ValueError(
                f"{path}, line {i + 1}: not a JSON object ({error}); delete the line or the file"
            ) from error
    return rows


def record_timing(run_dir: Path, stage: str, seconds: float, peak_bytes: int) -> None:
    """Put a stage's wall-clock seconds and peak memory into run_dir/timings.json; a stage run again replaces its row."""
    path = Path(run_dir) / "timings.json"
    stages = read_json(path)["stages"] if path.exists() else []
    row = {"stage": stage, "seconds": round(seconds, 3), "peak_bytes": int(peak_bytes)}
    known = [old["stage"] for old in stages]
    if stage in known:
        stages[known.index(stage)] = row
    else:
        stages.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"stages": stages})


def peak_memory_bytes() -> int:
    """The largest resident size of this process since it began, or since `reset_peak_memory`."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Start the peak anew, so that every stage of one process has its own (Linux; elsewhere the peak only grows).

    What malloc keeps of a stage before (`train/allocator.py`) is given back first, or it would count as this one's.
    """
    try:
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


# Instruction sets that decide which kernels PyTorch can choose, by the name Linux gives them.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")


def machine_facts() -> dict[str, Any]:
    """What this run ran on: cores, threads, CPU model and flags, memory in bytes, Python, platform, torch if imported."""
    model, flags = _cpu_model_and_flags()
    torch = sys.modules.get("torch")
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {
        "cores": cores,
        "threads": torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS", cores)),
        "cpu": model,
        "flags": flags,
        "avx512": "avx512f" in flags,
        "bf16": "avx512_bf16" in flags or "bf16" in flags,
        "amx_bf16": "amx_bf16" in flags,
        "memory_bytes": _memory_bytes(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__ if torch else None,
    }


def _cpu_model_and_flags() -> tuple[str, list[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), []
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip().lower(), value.strip())
    present = set((facts.get("flags") or facts.get("features") or "").split())
    return facts.get("model name") or platform.machine(), [flag for flag in CPU_FLAGS if flag in present]


def _memory_bytes() -> int:
    """Physical memory, or what the container may use of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def _json_line(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row), default=float, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if value is None or isinstance(value, str | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
