"""The rows of the table, in its order. Each module defines WORKLOADS: a list of workloads."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from bench.workload import Workload

MODULES = ("training", "rollout", "stream", "scoring", "reward_epoch", "ppo_iteration", "packing")


def workloads() -> list[Workload]:
    found = []
    for module in MODULES:
        name = f"{__name__}.{module}"
        if find_spec(name) is not None:
            found += import_module(name).WORKLOADS
    return found
