"""`ayni audit`: who and what a corpus speaks of (paper 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ayni.artifacts import Artifact, build, discard_partial, write_json
from ayni.config_measuring import AuditSettings
from ayni.text.audit import audit
from ayni.text.sources import read_texts


def run(
    settings: AuditSettings,
    corpus: Path,
    out: Path,
    *,
    seed: int,
    draw: Callable[[Path, dict[str, Any]], None],
) -> Artifact:
    """Writes audit.json and what `draw(directory, figures)` makes of it: the page and the plots."""

    def work_in(work: Path) -> None:
        figures = {"corpus": corpus.name, **audit(read_texts(corpus), settings, seed)}
        write_json(work / "audit.json", figures)
        draw(work, figures)

    # The number of processes changes nothing.
    inputs = {"corpus": corpus, "terms": settings.terms}
    kept = settings.model_dump(mode="json", exclude={"processes", "terms"})
    try:
        return build(out, "audit", kept, inputs, seed, work_in)
    except BaseException:
        discard_partial(out)  # there is no half of it to go on from
        raise
