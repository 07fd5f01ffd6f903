"""What a comparison is: one workload, our side, and the peers' sides, measured in turn in one interleaved run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BENCH = Path(__file__).parent
Facts = dict[str, Any]
Bound = Literal["bf16_flops", "fp32_flops", "read_bytes"]  # the peak of roofline.py that limits the work


@dataclass(frozen=True)
class Side:
    """A process that does the workload: `script` (inside bench/) under the Python of `environment`.

    The worker's set-up is the workload's inputs, then `setup`, then one of `candidates`, later keys winning. With several
    candidates each is tried once in a process of its own and the fastest stays; those in `beside` are measured and
    reported, never chosen. `inherits` names a side earlier in the workload whose choice this side takes over.
    """

    name: str
    script: str
    environment: str | None = None  # a key of environments.PEERS; None: the environment that runs the bench
    setup: Facts = field(default_factory=dict)
    candidates: tuple[Facts, ...] = ({},)
    beside: tuple[Facts, ...] = ()
    inherits: str | None = None
    settings: str = ""  # in words: dtype, batch, what was switched on

    def identity(self) -> Any:
        """All that decides what this side does: another script or another pin is another measurement."""
        pins = BENCH / "constraints" / f"{self.environment}.txt"
        return [vars(self), (BENCH / self.script).read_text(), pins.read_text() if self.environment else None]


@dataclass(frozen=True)
class Against:
    """A peer, and how many times as fast as it we want to be.

    `memory_goal`: the largest share of the peer's peak memory that we may need, if that is part of the goal.
    """

    side: Side
    goal: float
    memory_goal: float | None = None


@dataclass(frozen=True)
class Workload:
    """One row per peer, named NAME/PEER.

    `inputs` makes what both sides read (models, token files) and returns JSON for their set-up; it is called once, before
    any worker starts. `run` is sent with every run. `check` looks at the last run of every side ({side name: facts}) and
    raises ValueError if they did not do the same work. With a `bound`, each of our runs answers "cost" (its FLOPs, or the
    bytes that it must read), and the machine's peak takes its turn among the sides.
    """

    name: str
    unit: str  # "tokens/s": the workers count "tokens" as work
    ours: Side
    peers: tuple[Against, ...]
    inputs: Callable[[], Facts] = dict
    run: Facts = field(default_factory=dict)
    check: Callable[[dict[str, Facts]], None] | None = None
    bound: Bound | None = None
    roofline_goal: float | None = None  # share of the peak that we want to reach
    runs: int = 3  # interleaved, after one warm-up
    say: str = ""  # the workload in one sentence

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.ours, *(against.side for against in self.peers))

    def digest(self) -> str:
        """Changes with the definition of the row, and with nothing else."""
        goals = [[against.goal, against.memory_goal] for against in self.peers]
        facts = [self.name, self.unit, self.run, self.bound, self.runs, self.roofline_goal, goals]
        text = json.dumps([facts, [side.identity() for side in self.sides]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
