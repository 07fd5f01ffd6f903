"""Freezes what peers compute, for the tests to compare with: `.venv/bin/python -m bench.oracles [verl] [trl]`.

Each peer runs in its own environment (`bench/environments.py`, built if it is not there) and prints JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.environments import run_peer
from bench.state import publish

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "tests" / "train" / "data"
ENVIRONMENTS = {"verl": "verl", "trl": "trl-ppo"}


def main(names: list[str]) -> None:
    for name in names or ENVIRONMENTS:
        done = run_peer(ENVIRONMENTS[name], HERE / f"{name}_values.py", timeout=600)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr}")
        values = json.loads(done.stdout.splitlines()[-1])  # whatever a library prints on the way stands before it
        publish(DATA / f"{name}.json", json.dumps(values) + "\n")
        print(f"{values['peer']}: {DATA / f'{name}.json'}")


if __name__ == "__main__":
    main(sys.argv[1:])
