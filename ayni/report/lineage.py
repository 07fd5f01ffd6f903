"""The lineage picture: which artifact was made of which, from raw text to the last model, by their manifests alone.

Boxes stand in bands: what every version shares, then a band per version, from left to right in the order of making.
An arrow that a longer way through the picture implies is left out; the table under the picture lists every input.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.artifacts import is_artifact, read_manifest
from ayni.report import results as read
from ayni.report.versions import belongs_to, version_names

Row = dict[str, Any]
BOX_W, BOX_H, GAP_X, GAP_Y, STACK, TOP = 190, 60, 40, 52, 12, 26  # SVG units
CORNER = 8


@dataclass(frozen=True)
class Node:
    """An artifact. `inputs`: (role, the artifact that holds it or the path as it stands, whether it is still the same)."""

    name: str
    stage: str
    hash: str
    bytes: int
    seconds: float | None
    inputs: list[tuple[str, str, bool]]


def artifacts(run: read.Run) -> dict[str, Node]:
    """Every artifact of the run by its name, evaluations too, in the order in which they were made."""
    seconds = {row["stage"]: row["seconds"] for row in run.timings}
    manifests = {}
    for path in sorted(run.directory.glob("**/manifest.json")):
        name = path.parent.relative_to(run.directory).as_posix()
        if not any(part.startswith(".") for part in Path(name).parts) and is_artifact(path.parent):
            manifests[name] = read_manifest(path.parent)
    nodes = {}
    for name, manifest in manifests.items():
        inputs = []
        for role, given in manifest.get("inputs", {}).items():
            found = os.path.normpath(os.path.join(name, given["path"]))
            holder = next((h for h in sorted(manifests, reverse=True) if f"{found}/".startswith(f"{h}/")), None)
            changed = holder == found and manifests[holder].get("hash") != given["hash"]
            inputs.append((role, holder or Path(found).name, not changed))
        size = sum(entry["bytes"] for entry in manifest.get("files", {}).values())
        nodes[name] = Node(name, str(manifest["stage"]), str(manifest["hash"]), size, seconds.get(name), sorted(inputs))
    made = {row["stage"]: i for i, row in enumerate(run.timings)}
    return dict(sorted(nodes.items(), key=lambda item: (made.get(item[0], len(made)), item[0])))


def ancestors(nodes: dict[str, Node], last: str) -> set[str]:
    """`last` and everything it was made of."""
    found: set[str] = set()
    waiting = [last]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found.add(name)
            waiting += [source for _, source, _ in nodes[name].inputs]
    return found


def arrows(nodes: dict[str, Node], shown: set[str]) -> list[tuple[str, str]]:
    """(from, to) among the shown ones, without those that a longer way implies."""
    sources = {name: {s for _, s, _ in nodes[name].inputs if s in shown and s != name} for name in sorted(shown)}
    reach: dict[str, set[str]] = {}

    def behind(name: str) -> set[str]:
        if name not in reach:
            reach[name] = set()  # a ring, which no run makes, ends here
            reach[name] = sources[name].union(*(behind(source) for source in sources[name]))
        return reach[name]

    for name in sources:
        behind(name)
    return [
        (s, name) for name in sources for s in sorted(sources[name]) if not any(s in reach[o] for o in sources[name])
    ]


def picture(run: read.Run, nodes: dict[str, Node]) -> Row | None:
    """Boxes with their places, arrows as SVG paths, bands with their names, and the size of it all."""
    last = str(run.results.get("latest") or "")
    shown = ancestors(nodes, last) if last in nodes else {name for name in nodes if not name.startswith("eval/")}
    if not shown:
        return None
    drawn, names = arrows(nodes, shown), version_names(run)
    band_of = {name: belongs_to(name, names) for name in shown}
    bands = [band for band in (None, *names) if band in band_of.values()]
    places: dict[str, tuple[int, int]] = {}
    tops: dict[str | None, int] = {}
    marks: list[Row] = []
    top = widest = 0
    for band in bands:
        columns = _columns([name for name in nodes if name in shown and band_of[name] == band], drawn)
        high = max(len(column) for column in columns) * (BOX_H + STACK) - STACK
        marks.append(
            {"name": band or "from raw text", "y": top + TOP - 9, "number": names.index(band) + 1 if band else 0}
        )
        for x, column in enumerate(columns):
            used = len(column) * (BOX_H + STACK) - STACK
            for y, name in enumerate(column):
                places[name] = (x * (BOX_W + GAP_X), top + TOP + (high - used) // 2 + y * (BOX_H + STACK))
        tops[band] = top + TOP
        widest = max(widest, len(columns))
        top += TOP + high + GAP_Y - TOP
    return {
        "width": widest * (BOX_W + GAP_X) - GAP_X + GAP_X // 2,
        "height": top - GAP_Y + TOP + 6,
        "bands": marks,
        "boxes": [_box(nodes[name], places[name], name == last) for name in nodes if name in places],
        "arrows": [
            {"from": a, "to": b, "path": _path(places[a], places[b], band_of[a] == band_of[b], tops[band_of[b]])}
            for a, b in drawn
        ],
    }


def _columns(names: list[str], drawn: list[tuple[str, str]]) -> list[list[str]]:
    """The artifacts of a band by how many of them came before, the longest way counted."""
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for source, name in drawn:
            if source in depth and name in depth:
                depth[name] = max(depth[name], depth[source] + 1)
    return [found for d in range(len(names)) if (found := [name for name in names if depth[name] == d])]


def _path(start: tuple[int, int], end: tuple[int, int], same_band: bool, band_top: int) -> str:
    """From the right side of a box: to the left side of one further on, or down and round to the top of one in another band."""
    x0, y0 = start[0] + BOX_W, start[1] + BOX_H // 2
    if same_band and end[0] > start[0]:
        x1, y1 = end[0] - 5, end[1] + BOX_H // 2
        middle = (x0 + x1) / 2
        return f"M{x0} {y0} C{middle} {y0} {middle} {y1} {x1} {y1}"
    channel, gap, x1, y1 = x0 + GAP_X // 2 - 4, band_top - TOP - 4, end[0] + BOX_W // 2, end[1] - 5
    side = CORNER if x1 > channel else -CORNER
    return (
        f"M{x0} {y0} H{channel - CORNER} Q{channel} {y0} {channel} {y0 + CORNER} V{gap - CORNER} "
        f"Q{channel} {gap} {channel + side} {gap} H{x1 - side} Q{x1} {gap} {x1} {gap + CORNER} V{y1}"
    )


def _box(node: Node, place: tuple[int, int], last: bool) -> Row:
    took = [] if node.seconds is None else [read.clock(node.seconds)]
    sources = "\n".join(f"{role}: {source}" for role, source, _ in node.inputs)
    return {
        "x": place[0],
        "y": place[1],
        "name": _fitting(node.name, 24),
        "stage": _fitting(node.stage, 28),
        "cost": " · ".join([node.hash[:8], read.file_size(node.bytes), *took]),
        "last": last,
        "title": f"{node.name}, {node.hash}" + (f"\nmade of\n{sources}" if sources else ""),
    }


def _fitting(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def table(nodes: dict[str, Node]) -> list[Row]:
    """Every artifact with everything it was made of."""
    return [
        {
            "name": node.name, "stage": node.stage, "hash": node.hash[:12], "size": read.file_size(node.bytes),
            "seconds": node.seconds,
            "inputs": [{"role": r, "source": s, "same": same} for r, s, same in node.inputs],
        }
        for node in nodes.values()
    ]  # fmt: skip
