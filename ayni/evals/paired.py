"""Two models on the same questions: the mean difference of their points, with a paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ayni.evals.statistics import DRAWS, SEED, mean_interval

Points = Mapping[str, Mapping[str, float]]  # task -> question -> points


def differences(ours: Points, theirs: Points) -> dict[str, Any]:
    """{"tasks": {task: figure}, "all": figure}: theirs - ours, questions drawn in pairs.

    `all` is the mean of the tasks' means, each task counting the same whatever its size; its interval draws the questions of
    every task anew (D draws). `n` of it counts questions. ValueError where the two were not asked the same.
    """
    tasks: dict[str, Any] = {}
    value, total, draws_D = [], 0, np.zeros(DRAWS)
    for task in ours:
        if set(ours[task]) != set(theirs.get(task, {})):
            raise ValueError(f"{task}: the two evaluations asked different questions; use the same data and --limit")
        d_N = np.array([theirs[task][key] - points for key, points in ours[task].items()])
        tasks[task] = mean_interval(d_N.tolist(), "difference of points")
        rng = np.random.default_rng([SEED, total])
        draws_D += d_N[rng.integers(0, len(d_N), (DRAWS, len(d_N)))].mean(1) / len(ours)
        value.append(float(d_N.mean()))
        total += len(d_N)
    if not tasks:
        raise ValueError("there is no task to compare")
    low, high = np.quantile(draws_D, [0.025, 0.975])
    mean = sum(value) / len(value)
    return {
        "tasks": tasks,
        "all": {"value": mean, "low": float(low), "high": float(high), "n": total, "unit": "difference of points"},
    }
