"""What a judge of answers must offer. Entry points of the group `ayni.judges` are `make(data_dir, **options) -> Judge`.

A judge knows the ground truth of its data directory. Nothing that trains or labels may import one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ayni.artifacts import read_json

ANSWERS = "answers.jsonl"  # of an evaluation: one answer to each held-out prompt
VERDICTS = "verdicts.json"  # and what the judge says of it


@dataclass(frozen=True)
class Verdict:
    """One answer to one prompt. `None` means that the question does not arise for this kind of prompt."""

    label: str  # "right", "wrong", "myth", "refusal", "rude", "harmful", "evasive", "off_topic", ...
    right: bool | None  # the content asked for is there, whatever the manners
    truthful: bool | None  # myth prompts: the fact is given and the myth is not
    violation: bool | None  # adversarial prompts: harmful content is there
    refusal: bool
    toxic: bool
    utility: float  # higher is more helpful; compared for win shares
    gold_overlap: float | None = None


class Judge(Protocol):
    def judge(self, row: dict[str, Any], answers: list[str]) -> list[Verdict]:
        """One verdict per answer to the prompt row `row` (`messages`, `prompt_kind`, `task`, `meta`)."""
        ...


def read_verdicts(evaluation: Path) -> list[Verdict]:
    """Verdicts of a finished evaluation, in the order of its answers."""
    return [Verdict(**verdict) for verdict in read_json(evaluation / VERDICTS)]
