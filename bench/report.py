"""results.json, and RESULTS.md drawn from it alone (and from growth.json, where `python -m bench.growth` has been)."""

from __future__ import annotations

import json
from pathlib import Path

from bench import machine
from bench.state import State, publish
from bench.workload import BENCH, Facts, Workload

RESULTS, TABLE, GROWTH = "results.json", "RESULTS.md", "growth.json"
GIGA = 1e9
HEADER = """# Ayni beside what a user would pick instead
`make bench` measures this and writes it. Weights of SmolLM2-135M-Instruct, {threads} threads for every side, each side in a process and an
environment of its own at pinned versions. The sides take turns (ours, peer, peer, ours, ...), once to warm up and then {runs}
times; a figure is the median of its runs, a ratio the median of the paired ratios. Where a peer has settings to choose, each was
tried and its fastest stands here; what was tried is in `results.json` (`extra`).
"""


def write_results(out: Path, workloads: list[Workload], state: State) -> Facts:
    """Gathers the finished workloads into OUT/results.json; rows that are not measured yet are named, never guessed."""
    finished = {workload.name: state.read(workload) for workload in workloads}
    rows = [row for found in finished.values() if found for row in found["rows"]]
    rooflines = [found["roofline"] for found in finished.values() if found and found["roofline"]]
    results = {
        "machine": machine.facts(),
        "roofline": {key: max(peaks[key] for peaks in rooflines) for key in (rooflines[0] if rooflines else {})},
        "rows": rows,
        "missing": [
            f"{workload.name}/{against.side.name}"
            for workload in workloads
            if not finished[workload.name]
            for against in workload.peers
        ],
        "seconds": sum(found["seconds"] for found in finished.values() if found),
    }
    publish(out / RESULTS, json.dumps(results, indent=1) + "\n")
    return results


def write_table(out: Path) -> Path:
    """OUT/RESULTS.md from OUT/results.json. ValueError if nothing was measured yet."""
    source = out / RESULTS
    if not source.exists():
        raise ValueError(f"{source}: missing; run `python -m bench` first")
    results = json.loads(source.read_text())
    parts = [HEADER.format(threads=results["machine"]["threads"], runs=runs_of(results))]
    parts += [table(results), machine_text(results), settings_text(results), growth_text(out)]
    publish(out / TABLE, "\n".join(part for part in parts if part))
    return out / TABLE


def runs_of(results: Facts) -> str:
    counts = sorted({len(row["ours_runs"]) for row in results["rows"]})
    return " or ".join(map(str, counts)) or "3"


def table(results: Facts) -> str:
    lines = [
        "| row | ours | peer | unit | ratio | goal | | memory, ours / peer | share of roofline |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    lines += [table_line(row) for row in results["rows"]]
    lines += [f"| {name} | | | | | | not measured | | |" for name in results["missing"]]
    met = sum(row["met"] for row in results["rows"])
    total = len(results["rows"]) + len(results["missing"])
    lines.append(f"\n{met} of {total} rows meet their goal.{older_code(results)}\n")
    return "\n".join(lines)


def table_line(row: Facts) -> str:
    extra = row["extra"]
    ratio = f"{row['ratio']:.2f}x ({spread(row)})"
    goal = f"{row['goal']:g}x" + (f", memory {extra['memory_goal']:.0%}" if extra["memory_goal"] else "")
    met = "met" if row["met"] else "**not met**"
    cells = [
        row["name"],
        figure(row["ours"]),
        figure(row["peer"]),
        row["unit"],
        ratio,
        goal,
        met,
        memory(extra),
        share(row),
    ]
    return f"| {' | '.join(cells)} |"


def spread(row: Facts) -> str:
    """The lowest and the highest of the paired ratios."""
    ratios = [mine / yours for mine, yours in zip(row["ours_runs"], row["peer_runs"], strict=True)]
    return f"{min(ratios):.2f}–{max(ratios):.2f}"


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def memory(extra: Facts) -> str:
    if not extra["memory_ratio"]:
        return ""
    return f"{extra['peak_memory_ours'] / GIGA:.2f} / {extra['peak_memory_peer'] / GIGA:.2f} GB ({extra['memory_ratio']:.0%})"


def share(row: Facts) -> str:
    if row["roofline_share"] is None:
        return ""
    extra = row["extra"]
    of_what = {"bf16_flops": "bf16 GEMM", "fp32_flops": "fp32 GEMM", "read_bytes": "read bandwidth"}[extra["bound"]]
    text = f"{row['roofline_share']:.0%} of {of_what}"
    if extra["roofline_goal"]:
        text += f" (goal {extra['roofline_goal']:.0%}: {'met' if extra['roofline_met'] else '**not met**'})"
    return text


def older_code(results: Facts) -> str:
    """Rows are measured one by one: those of other sources than the newest row's are named."""
    rows = results["rows"]
    if not rows:
        return ""
    newest = max(rows, key=lambda row: row["extra"]["date"])["extra"]["code"]
    old = [row["name"] for row in rows if row["extra"]["code"] != newest]
    return f" Measured on earlier code than the newest row: {', '.join(old)}." if old else ""


def machine_text(results: Facts) -> str:
    facts, peaks = results["machine"], results["roofline"]
    flags = ", ".join(f"{flag} {'yes' if has else 'no'}" for flag, has in facts["flags"].items())
    lines = [
        "## The machine",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; {flags}.",
        f"{facts['system']}, Python {facts['python']}, torch {facts['torch']}; {facts['date']}; "
        f"{results['seconds'] / 60:.0f} minutes of measuring.",
    ]
    if peaks:
        lines.append(
            f"Roofline, the best seen while the rows were measured: GEMM {peaks['bf16_flops'] / 1e12:.2f} TFLOP/s in bf16, "
            f"{peaks['fp32_flops'] / 1e12:.2f} in fp32; {peaks['read_bytes'] / GIGA:.1f} GB/s read, "
            f"{peaks['copy_bytes'] / GIGA:.1f} GB/s copied (read + write). A row's share is of the peak measured in its own run."
        )
    return "\n".join(lines) + "\n"


def settings_text(results: Facts) -> str:
    lines = ["## What each row does, and the settings of both sides"]
    for row in results["rows"]:
        lines.append(f"- **{row['name']}** ({row['extra']['date']}): {row['extra']['say']}. {row['settings']}")
    return "\n".join(lines) + "\n"


def growth_text(out: Path) -> str:
    source = next((folder / GROWTH for folder in (out, BENCH) if (folder / GROWTH).exists()), None)
    if source is None:
        return ""
    growth = json.loads(source.read_text())
    pictures = [f"![How cost grows]({path.name})" for path in sorted(source.parent.glob("*.svg"))]
    return "\n".join(["## How cost grows", growth["words"], "", *pictures]) + "\n"
