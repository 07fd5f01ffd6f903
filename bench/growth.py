"""How our tokens/s and peak memory grow with sequence length, batch, model size and K, beside the law that they should follow.

.venv/bin/python -m bench.growth        writes growth.json and growth.svg, and RESULTS.md anew where results.json exists
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ayni.config import ModelSettings
from bench import growth_laws, machine
from bench.growth_plot import draw
from bench.measure import tell
from bench.process import Worker, interpreter
from bench.report import GROWTH, RESULTS, write_table
from bench.state import publish
from bench.workload import BENCH, Facts

CONTEXT = 8192


def shape(vocab_size: int, dim: int, layers: int, heads: int, kv_heads: int, ffn_dim: int) -> ModelSettings:
    return ModelSettings(
        vocab_size=vocab_size,
        dim=dim,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=kv_heads,
        ffn_dim=ffn_dim,
        max_seq_len=CONTEXT,
        tie_embeddings=True,
    )


SMOLLM2 = shape(49_152, 576, 30, 9, 3, 1536)
SIZES = (
    shape(2048, 128, 4, 4, 2, 352),  # 1M
    shape(8192, 256, 6, 4, 2, 704),  # 6M
    shape(16_384, 384, 12, 6, 2, 1024),  # 25M
    shape(32_768, 512, 16, 8, 2, 1408),  # 62M
    SMOLLM2,  # 135M
    shape(49_152, 960, 32, 15, 5, 2560),  # 362M
)


@dataclass(frozen=True)
class Curve:
    """What grows, and the points: (x, model, run). x None: the model's number of parameters."""

    name: str
    kind: str  # `train` or `sample`
    x_label: str
    points: tuple[tuple[int | None, ModelSettings, Facts], ...]


def train(rows: int, length: int) -> Facts:
    return {"rows": rows, "length": length}


def sample(prompts: int, prompt_length: int, samples: int, new_tokens: int) -> Facts:
    return {"prompts": prompts, "prompt_length": prompt_length, "samples": samples, "new_tokens": new_tokens}


def curves() -> list[Curve]:
    batches = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    length = [(T, SMOLLM2, train(1, T)) for T in (256, 512, 1024, 2048, 4096)]
    batch = [(rows, SMOLLM2, sample(rows, 64, 1, 32)) for rows in batches]
    size = [(None, settings, train(4, 256)) for settings in SIZES]
    fan = [(K, SMOLLM2, sample(1, 512, K, 32)) for K in (1, 2, 4, 8, 16, 32, 64)]
    every = [
        Curve("length", "train", "training: tokens of the one row", tuple(length)),
        Curve("batch", "sample", "decoding: rows (64 + 32 tokens)", tuple(batch)),
        Curve("size", "train", "training 4 x 256: parameters", tuple(size)),
        Curve("K", "sample", "K samples of one prompt (512 + 32 tokens)", tuple(fan)),
    ]
    if os.environ.get("BENCH_TINY"):
        every = [Curve(c.name, c.kind, c.x_label, c.points[:2]) for c in every]
    return every


def measure_point(curve: Curve, settings: ModelSettings, run: Facts, log: Path) -> Facts:
    """One process, so that its memory is its own: a run to warm up, then the run that counts."""
    worker = Worker(BENCH / "ours" / "growth.py", interpreter(None), log)
    try:
        worker.ask({"setup": {"settings": settings.model_dump(mode="json"), "kind": curve.kind}})
        warm = worker.ask({"run": run})
        return min(warm, worker.ask({"run": run}), key=lambda facts: facts["seconds"])
    finally:
        worker.close()


def measure_peaks(log: Path) -> Facts:
    worker = Worker(BENCH / "roofline.py", interpreter(None), log)
    try:
        worker.ask({"setup": {}})
        return worker.ask({"run": {}})
    finally:
        worker.close()


def measured(curve: Curve, peaks: Facts, log: Path) -> Facts:
    """The curve with its laws; `speed_deviation` is measured over law, the curve's own median efficiency taken out."""
    training = curve.kind == "train"
    seconds = growth_laws.training_seconds if training else growth_laws.sampling_seconds
    memory = growth_laws.training_memory if training else growth_laws.sampling_memory
    points = []
    for x, settings, run in curve.points:
        found = measure_point(curve, settings, run, log)
        at = found["parameters"] if x is None else x
        speed = found["work"] / found["seconds"]
        points.append(
            {
                "x": at,
                "speed": speed,
                "speed_law": found["work"] / seconds(settings, run, peaks),
                "memory": found["peak_memory"],
                "memory_law": memory(settings, run, found),
                "run": run,
            }
        )
        tell(f"{curve.name} {at}: {speed:.4g} tokens/s, {found['peak_memory'] / 1e9:.2f} GB")
    return with_deviations({"name": curve.name, "x_label": curve.x_label, "points": points})


def with_deviations(curve: Facts) -> Facts:
    efficiency = median(point["speed"] / point["speed_law"] for point in curve["points"])
    for point in curve["points"]:
        point["speed_deviation"] = point["speed"] / (point["speed_law"] * efficiency)
        point["memory_deviation"] = point["memory"] / point["memory_law"]
    return {**curve, "efficiency": efficiency}


def words(found: list[Facts]) -> str:
    """The worst deviation of speed and of memory, in a sentence each."""
    every = [(curve, point) for curve in found for point in curve["points"]]
    curve, point = max(every, key=lambda pair: max(pair[1]["speed_deviation"], 1 / pair[1]["speed_deviation"]))
    ratio = point["speed_deviation"]
    speed = (
        f"Speed departs most from its law at {curve['name']} = {point['x']:,} ({curve['x_label']}): {point['speed']:,.0f} tokens/s, "
        f"{ratio:.2f} times what the law gives at this curve's median efficiency ({curve['efficiency']:.0%} of the roofline)."
    )
    curve, point = max(every, key=lambda pair: max(pair[1]["memory_deviation"], 1 / pair[1]["memory_deviation"]))
    memory = (
        f"Memory departs most at {curve['name']} = {point['x']:,} ({curve['x_label']}): {point['memory'] / 1e9:.2f} GB, "
        f"{point['memory_deviation']:.2f} times the law's {point['memory_law'] / 1e9:.2f} GB."
    )
    return f"{speed}\n{memory}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--out", type=Path, default=BENCH, help="where growth.json and growth.svg go (default: bench/)")
    out: Path = parser.parse_args().out
    if os.environ.get("BENCH_TINY") and out.resolve() == BENCH.resolve():
        parser.error("BENCH_TINY makes this a try-out: give --out FOLDER, or unset it")
    started = time.perf_counter()
    log = out / ".state" / "logs" / "growth.log"
    peaks = measure_peaks(log)
    found = [measured(curve, peaks, log) for curve in curves()]
    facts = {"machine": machine.facts(), "roofline": peaks, "curves": found, "words": words(found)}
    facts["seconds"] = time.perf_counter() - started
    draw(found, out / "growth.svg")
    publish(out / GROWTH, json.dumps(facts, indent=1) + "\n")
    tell(facts["words"])
    if (out / RESULTS).exists():
        write_table(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
