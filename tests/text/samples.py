from __future__ import annotations

import random


def sample_texts(seed: int = 0) -> list[str]:
    """Made-up words in sentences with sums, tabs and line breaks: enough for a few hundred pieces."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randint(2, 8))) for _ in range(300)]
    return [f"{' '.join(rng.choices(words, k=30))}.\n12 + 34 = {rng.randint(0, 999)}\tyes" for _ in range(200)]
