"""The gate's threshold (paper 3.2.3): where a safety model's probability of being safe stops being enough.

The paper's 0.15 gave precision 0.89, recall 0.55 on its safety test set; it speaks of that model alone.
"""

from __future__ import annotations

from typing import Any

PAPERS_THRESHOLD = 0.15


def best_threshold(probabilities: list[float], unsafe: list[bool], precision_wanted: float) -> dict[str, Any]:
    """The highest recall at the wanted precision; where none reaches it the best F1, and the figures say so.

    Sweeps every cut between two neighbouring probabilities of being safe; "unsafe" is what lies below the cut.
    """
    if not any(unsafe) or all(unsafe):
        note = "held-out pairs hold one class only: the paper's threshold stands"
        return {"threshold": PAPERS_THRESHOLD, "precision": None, "recall": None, "n": len(unsafe), "note": note}
    ordered = sorted(zip(probabilities, unsafe))
    total = sum(unsafe)
    candidates = []
    hits = 0
    for i, (probability, is_unsafe) in enumerate(ordered):
        hits += is_unsafe
        following = ordered[i + 1][0] if i + 1 < len(ordered) else max(1.0, probability + 1e-6)
        if following > probability:
            precision, recall = hits / (i + 1), hits / total
            f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
            candidates.append(
                {"threshold": (probability + following) / 2, "precision": precision, "recall": recall, "f1": f1}
            )
    precise = [cut for cut in candidates if cut["precision"] >= precision_wanted and cut["recall"] > 0]
    best = max(precise, key=lambda cut: cut["recall"]) if precise else max(candidates, key=lambda cut: cut["f1"])
    return {**best, "n": len(ordered), "precision_wanted": precision_wanted}
