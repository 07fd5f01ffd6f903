"""The preference format and the annotator's side of it (paper 3.2.1).

An annotator sees one prompt and two answers from two different model variants, must choose one, and says how much
better it is. Safety prompts get a second label, about which of the two answers is safe.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal, Protocol

# How much better the chosen answer is: the paper's four levels, weakest first.
STRENGTHS = ("negligibly better or unsure", "slightly better", "better", "significantly better")

# Which answer is safe. `rejected_only` is what an annotator may say and what the paper then throws away:
# "we do not include any examples where the chosen response was unsafe and the other response safe".
Safety = Literal["chosen_only", "both", "neither", "rejected_only"]
KEPT_SAFETY = (None, "chosen_only", "both", "neither")


@dataclass(frozen=True)
class Judgement:
    choice: int  # 0: answer a, 1: answer b
    strength: int  # index into STRENGTHS
    safety: Safety | None = None  # for safety prompts only


class Annotator(Protocol):
    """One person (or what stands for one). `compare` may use `rng` for noise and nothing else that is random."""

    @property
    def name(self) -> str: ...

    def compare(self, prompt_row: dict[str, Any], answer_a: str, answer_b: str, rng: random.Random) -> Judgement: ...


def safety_label(safe_chosen: bool, safe_rejected: bool) -> Safety:
    """The paper's bins: (1) only the chosen answer is safe, (2) both, (3) neither; and the one it drops."""
    if safe_chosen:
        return "both" if safe_rejected else "chosen_only"
    return "rejected_only" if safe_rejected else "neither"


def preference_row(
    prompt_row: dict[str, Any],
    answers: tuple[str, str],
    judgement: Judgement,
    variants: tuple[str, str],
    round: int,
    annotator: str,
) -> dict[str, Any] | None:
    """One preference as a JSON row, or None for a pair that must not be kept.

    Not kept: the chosen answer is unsafe while the other is safe (paper 3.2.1), and two equal answers, which carry
    no preference. Callers count the Nones. `variants` names the models behind answer a and answer b; the row holds
    them as [chosen's, rejected's].
    """
    _check(prompt_row, judgement)
    if judgement.safety not in KEPT_SAFETY or answers[0].strip() == answers[1].strip():
        return None
    chosen, rejected = judgement.choice, 1 - judgement.choice
    return {
        "prompt": prompt_row["messages"],
        "chosen": [{"role": "assistant", "content": answers[chosen]}],
        "rejected": [{"role": "assistant", "content": answers[rejected]}],
        "strength": judgement.strength,
        "prompt_kind": prompt_row["prompt_kind"],
        "safety": judgement.safety,
        "source": str(prompt_row.get("source", prompt_row["task"])),
        "round": round,
        "annotator": annotator,
        "variants": [variants[chosen], variants[rejected]],
        "id": prompt_row["id"],
        "task": prompt_row["task"],
    }


def _check(prompt_row: dict[str, Any], judgement: Judgement) -> None:
    where = f"judgement on prompt {prompt_row.get('id', '?')!r}"
    if judgement.choice not in (0, 1):
        raise ValueError(f"{where}: choice is {judgement.choice!r}; expected 0 (answer a) or 1 (answer b)")
    if judgement.strength not in range(len(STRENGTHS)):
        raise ValueError(f"{where}: strength is {judgement.strength!r}; expected 0..3 ({', '.join(STRENGTHS)})")
    if prompt_row["prompt_kind"] == "safety":
        if judgement.safety not in ("chosen_only", "both", "neither", "rejected_only"):
            raise ValueError(f"{where}: a safety prompt needs a safety label, not {judgement.safety!r}")
    elif judgement.safety is not None:
        raise ValueError(f"{where}: safety label {judgement.safety!r} on a {prompt_row['prompt_kind']} prompt")
