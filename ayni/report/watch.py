"""`ayni watch RUN`: a run's directory as it stands now, drawn in the terminal until the run is through.

Files are read and nothing else: `.status.json` (which stage, which bars), `.NAME.partial/logs/metrics.jsonl` (curves of
the stage at work), `timings.json` (stages that are done). The run does not notice.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ayni import status
from ayni.artifacts import read_json
from ayni.report.events import EventFiles
from ayni.report.results import file_size, gibibytes
from ayni.telemetry import clock, read_metrics, results_console, short

Row = dict[str, Any]
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 36  # characters of a curve
ROOM = 16  # lines that the frame needs beside the finished stages
# What a stage's log may hold, in a reader's order; the first four that are there are drawn.
CURVES = (
    "loss", "reward", "heldout_reward", "kl_k1", "accuracy", "value_ev", "entropy", "mean_tokens", "tokens_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A run as its files show it at one moment."""

    directory: Path
    stage: str | None  # the directory that is being built, None between two
    title: str
    seconds: float | None  # the stage has been at work
    bars: list[Row]
    rows: list[Row]  # the stage's metrics so far
    finished: list[Row]  # timings.json
    used: int  # bytes
    free: int
    over: str  # "", "finished" or "stopped"


def look(run_dir: Path) -> Seen:
    """Reads the run's files; ValueError where there is no such directory. A file that moves meanwhile counts as not there."""
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir}: no such directory; give the run directory that `ayni run` writes (runs/NAME)")
    says = status.read(run_dir)
    stage = says.get("stage") or _partial(run_dir)
    since = says.get("since")
    return Seen(
        directory=run_dir,
        stage=stage,
        title=str(says.get("title") or stage or ""),
        seconds=None if since is None else time.time() - float(since),
        bars=says.get("bars") or [],
        rows=_metrics(run_dir, stage) if stage else [],
        finished=_timings(run_dir),
        used=_bytes_in(run_dir),
        free=shutil.disk_usage(run_dir).free,
        over=_over(run_dir, says, stage),
    )


def _over(run_dir: Path, says: Row, stage: str | None) -> str:
    if says.get("finished") or (not says and stage is None and (run_dir / "report.html").is_file()):
        return "finished"
    return "" if status.alive(says) else "stopped"


def _partial(run_dir: Path) -> str | None:
    """The stage whose working directory changed last, for runs that say nothing of themselves."""
    found = sorted(run_dir.glob("**/.*.partial"), key=_changed)
    if not found:
        return None
    name = found[-1].name.removeprefix(".").removesuffix(".partial")
    return str(found[-1].relative_to(run_dir).with_name(name))


def _changed(path: Path) -> float:
    try:
        return max(path.stat().st_mtime, (path / "logs").stat().st_mtime)
    except OSError:
        return 0.0


def _metrics(run_dir: Path, stage: str) -> list[Row]:
    out = run_dir / stage
    for directory in (out.with_name(f".{out.name}.partial"), out):
        try:
            return read_metrics(directory / "logs" / "metrics.jsonl")
        except (OSError, ValueError):
            continue
    return []


def _timings(run_dir: Path) -> list[Row]:
    try:
        return list(read_json(run_dir / "timings.json")["stages"])
    except (ValueError, KeyError):
        return []


def _bytes_in(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # published or dropped meanwhile
            continue
    return total


def frame(seen: Seen, height: int = 50) -> RenderableType:
    """One picture of the run, at most about `height` lines high."""
    parts: list[RenderableType] = [_head(seen)]
    if seen.finished:
        parts.append(Padding(_done(seen, max(4, height - ROOM)), (1, 0, 0, 0)))
    if seen.over == "finished":
        page = seen.directory / "report.html"
        parts.append(Padding(Text(f"finished: {page}", style="bold green"), (1, 0, 0, 0)))
    elif seen.over == "stopped":
        text = (
            f"stopped at {seen.stage or 'a stage'}: its process is gone; the same `ayni run` command goes on from there"
        )
        parts.append(Padding(Text(text, style="bold yellow"), (1, 0, 0, 0)))
    elif seen.stage:
        parts.append(Padding(_now(seen), (1, 0, 0, 0)))
    else:
        parts.append(Text("\nbetween two stages, or nothing at work", style="dim"))
    return Group(*parts)


def _head(seen: Seen) -> Text:
    head = Text(str(seen.directory), style="bold")
    head.append(f"   disk {file_size(seen.used)} used, {file_size(seen.free)} free", style="dim")
    return head


def _done(seen: Seen, room: int) -> Table:
    """The stages that are done, the latest ones where there are many, and their time in all."""
    rows = [row for row in seen.finished if row["stage"] != seen.stage or seen.over]
    hidden = rows[: max(0, len(rows) - room)]
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="green")
    drawn.add_column(overflow="fold")
    drawn.add_column(justify="right")
    drawn.add_column(justify="right", style="dim")
    if hidden:
        earlier = Text(f"{len(hidden)} earlier stages", style="dim")
        drawn.add_row("✓", earlier, clock(sum(row["seconds"] for row in hidden)), "")
    for row in rows[len(hidden) :]:
        drawn.add_row("✓", Text(row["stage"]), clock(row["seconds"]), gibibytes(row.get("peak_bytes")))
    total = sum(row["seconds"] for row in rows)
    drawn.add_row("", Text(f"{len(rows)} stages done", style="dim"), Text(clock(total), style="bold"), "")
    return drawn


def _now(seen: Seen) -> RenderableType:
    head = Text("● ", style="cyan").append(seen.title, style="bold")
    head.append(f"   {seen.stage}" + ("" if seen.seconds is None else f", {clock(seen.seconds)}"), style="dim")
    bars = Table.grid(padding=(0, 2))
    for bar in seen.bars:
        total = float(bar.get("total") or 0)
        drawn = ProgressBar(total or 1.0, min(float(bar.get("done") or 0), total or 1.0), width=24)
        bars.add_row(Text(f"  {bar.get('name', '')}"), drawn if total else Text(""), Text(str(bar.get("line", ""))))
    curves = Table.grid(padding=(0, 2))
    for key in _curves(seen.rows):
        values = [float(row[key]) for row in seen.rows if _is_number(row.get(key))]
        change = short(values[-1]) if len(values) == 1 else f"{short(values[0])} → {short(values[-1])}"
        curves.add_row(Text(f"  {key.replace('_', ' ')}"), Text(spark(values), style="cyan"), Text(change))
    return Group(head, *([bars] if seen.bars else []), *([curves] if seen.rows else []))


def _curves(rows: Sequence[Row]) -> list[str]:
    known = [key for key in CURVES if any(_is_number(row.get(key)) for row in rows)]
    return known[:4]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spark(values: Sequence[float], width: int = WIDTH) -> str:
    """The values as blocks of eight heights between their smallest and their largest, a character per `width`-th of them."""
    n = min(width, len(values))
    cut = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in cut]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(BLOCKS[min(7, int(8 * (mean - low) / span))] for mean in means)


def watch(
    run_dir: Path,
    once: bool = False,
    every: float = 1.0,
    tensorboard: Path | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Draws the run again and again until it is through (or its process is gone); `once`: a single frame.

    `every`: seconds between two looks. `tensorboard`: a directory whose event files follow the run's metrics.
    """
    console = results_console
    events = EventFiles(tensorboard) if tensorboard else None
    height = console.height if console.is_terminal else 10_000  # a file or a pipe scrolls
    seen = look(run_dir)
    if events:
        events.follow(run_dir)
    if once:
        console.print(frame(seen, height))
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Live(frame(seen, height), console=console, auto_refresh=False) as live:
            while not seen.over:
                wait(every)
                seen = look(run_dir)
                if events:
                    events.follow(run_dir)
                live.update(frame(seen, console.height if console.is_terminal else height), refresh=True)
    except KeyboardInterrupt:
        console.print(Text(f"no longer watching; the run goes on. Again: ayni watch {shlex.quote(str(run_dir))}"))
    finally:
        if events:
            events.close()
