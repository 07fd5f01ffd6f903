"""Stage 0: texts, demonstrations and prompts from a data source (a plug-in of the group `ayni.data`)."""

from __future__ import annotations

from pathlib import Path

from ayni.artifacts import Artifact, build
from ayni.config import DataSettings
from ayni.plugins import plugin


def run(settings: DataSettings, out: Path, *, seed: int) -> Artifact:
    """Writes corpus/, sft.jsonl, prompts_{train,dev,eval}.jsonl as far as the source has them."""
    write = plugin("data", settings.source)
    return build(out, "data", settings.model_dump(), {}, seed, lambda work: write(work, seed=seed, **settings.options))
