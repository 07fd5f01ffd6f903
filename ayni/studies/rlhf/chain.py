"""V1..Vn as the studies of RLHF share them: fresh preferences, refreshed reward models, rejection sampling.

    P_n   preferences between the latest model and the one before (P_1: SFT, and SFT after one epoch)
    R_n   both reward models on P_1..P_n, started from the latest model
    V_n   the best of K answers of the latest model by R_n, on which the SFT model is fine-tuned

Every function names the models it needs; the lab makes each once, whichever study asks first. Left out, for time: the
temperature is not tuned anew at each version, and rounds after the first are half as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.scoring.reward import Scorers
from ayni.stages.preferences import Variant
from ayni.studies.lab import Lab

LATER_PAIRS = 1200  # of a round after the first


@dataclass(frozen=True)
class Start:
    """What RLHF starts from."""

    data: Path
    sft: Path
    early: Path  # the second model of the first preferences: one epoch of SFT


def start(lab: Lab, demonstrations: str = "sft.jsonl") -> Start:
    """SFT on a file of the data directory."""
    data = lab.data()
    base = lab.base(data)
    chats = data / demonstrations
    return Start(data, lab.sft(data, base, chats), lab.sft(data, base, chats, seed=lab.seed + 1, epochs=1))


def gathered(lab: Lab, begin: Start, models: Sequence[Path] = ()) -> list[Path]:
    """The preferences of every round so far, one round more than there are models of versions."""
    variants = [Variant("sft", begin.sft), Variant("sft_early", begin.early)]
    rounds = [lab.preferences(begin.data, variants)]
    for number, model in enumerate(models, start=2):
        variants = [Variant(f"v{number - 1}", model), variants[0]]
        rounds.append(lab.preferences(begin.data, variants, number, **full(lab, pairs=LATER_PAIRS)))
    return rounds


def scorers(lab: Lab, begin: Start, models: Sequence[Path] = ()) -> Scorers:
    """The reward models that the next version is tuned by; without `models` V1's."""
    latest = models[-1] if models else begin.sft
    return lab.scorers(begin.data, latest, gathered(lab, begin, models))


def versions(lab: Lab, begin: Start, count: int) -> list[Path]:
    """V1..V`count`."""
    models: list[Path] = []
    for number in range(1, count + 1):
        latest = models[-1] if models else begin.sft
        by = scorers(lab, begin, models)
        models.append(lab.rejection(begin.data, latest, begin.sft, by, models, number))
    return models


def full(lab: Lab, **updates: Any) -> dict[str, Any]:
    """Settings of a study's own size; a smoke run keeps those of smoke.yaml."""
    return {} if lab.smoke else updates
