"""AlpacaEval's rows as preferences: two outputs to an instruction, and a judge's probability that the second is better.

    {"prompt" or "instruction", "output_1", "output_2", "preference_2" in 0..1 or "preference" in 1..2, "judge" or "annotator"}

The chosen answer is the one the judge leans to; how far it leans gives the strength (our choice: see STEPS).
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
# The judge's probability of the chosen answer from which it is slightly better, better, significantly better.
STEPS = (0.6, 0.8, 0.95)


def is_judgement(row: Row) -> bool:
    return "output_1" in row or "output_2" in row


def from_judgement(row: Row, where: str) -> Row | None:
    """One preference in Ayni's keys; None where the outputs are equal or the judge leans neither way.

    Raises ValueError, beginning with `where`, for a row that lacks a key or whose preference is no probability.
    """
    instruction = row.get("prompt", row.get("instruction"))
    for key, value in (("prompt", instruction), ("output_1", row.get("output_1")), ("output_2", row.get("output_2"))):
        if not isinstance(value, str):
            raise ValueError(f"{where}: a judgement needs {key} as text, found {str(value)[:60]!r}")
    second = _probability_of_second(row, where)
    outputs = (row["output_1"], row["output_2"])
    if second == 0.5 or outputs[0].strip() == outputs[1].strip() or not all(text.strip() for text in outputs):
        return None
    choice = int(second > 0.5)
    return {
        "prompt": [{"role": "user", "content": instruction}],
        "chosen": [{"role": "assistant", "content": outputs[choice]}],
        "rejected": [{"role": "assistant", "content": outputs[1 - choice]}],
        "strength": sum(max(second, 1 - second) >= step for step in STEPS),
        "prompt_kind": row.get("prompt_kind", "helpful"),
        "annotator": str(row.get("judge", row.get("annotator", "unknown"))),
        "variants": [str(row.get(f"generator_{i + 1}", "unknown")) for i in (choice, 1 - choice)],
        **({"source": row["source"]} if "source" in row else {}),
    }


def _probability_of_second(row: Row, where: str) -> float:
    for key, offset in (("preference_2", 0.0), ("preference", 1.0)):
        if key in row:
            value = row[key]
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value - offset <= 1:
                raise ValueError(f"{where}: {key} is {value!r}; expected a number from {offset:g} to {offset + 1:g}")
            return float(value) - offset
    raise ValueError(
        f"{where}: a judgement needs preference_2, the probability that output_2 is better; found {', '.join(row)}"
    )
