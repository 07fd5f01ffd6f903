"""A side whose speed is what its set-up says: no clock, no model."""

from __future__ import annotations

from typing import Any

from bench.worker import Run, serve


def load(setup: dict[str, Any]) -> Run:
    print("a library's greeting on standard output")

    def run(request: dict[str, Any]) -> dict[str, Any]:
        if setup.get("fails"):
            raise RuntimeError("this candidate cannot run")
        seconds = setup["seconds"][request["nth"]] if isinstance(setup["seconds"], list) else setup["seconds"]
        if request["warmup"]:
            seconds = 1000.0
        print("and more of it while it runs")
        return {"seconds": seconds, "work": 10, "answer": setup.get("answer", 42)}

    return run


if __name__ == "__main__":
    serve(load)
