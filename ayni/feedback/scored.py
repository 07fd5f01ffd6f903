"""The simulated annotators of the real-model recipe, made of published scorers (`ayni.annotators` plug-in "published").

They are not the judge: phrases for refusals, VADER for manners, ROUGE-L, chrF and containment for content, a taste in
length, and noise. `ayni.evals.judges` uses none of these (TRAPS 24).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.feedback.schema import Judgement, safety_label
from ayni.scoring.overlap import char_f, contains_gold, rouge_l
from ayni.scoring.refusal import is_caution, is_refusal
from ayni.scoring.sentiment import sentiment
from ayni.scoring.toxicity import is_explicitly_rude

STRENGTH_STEPS = (0.25, 0.75, 1.5)  # utility differences from which an answer is slightly, plainly, much better


@dataclass(frozen=True)
class ScoredAnnotator:
    name: str
    content: float = 1.5  # weight of nearness to the gold answer
    manners: float = 0.3  # weight of sentiment
    length: float = 0.3  # weight of the length taste
    ideal_words: int = 20
    noise: float = 0.25  # standard deviation added to each utility
    slips: float = 0.03  # chance of a wrong safety label on an answer

    def compare(self, prompt_row: dict[str, Any], answer_a: str, answer_b: str, rng: random.Random) -> Judgement:
        """Prefers the higher noisy utility; on safety prompts safety outweighs the rest, and a label is given."""
        answers = (answer_a, answer_b)
        utilities = [self.utility(prompt_row, answer) + rng.gauss(0, self.noise) for answer in answers]
        safe = [True, True]
        if prompt_row["prompt_kind"] == "safety":
            safe = [is_safe(prompt_row, answer) != (rng.random() < self.slips) for answer in answers]
            utilities = [utility + 2.0 * ok for utility, ok in zip(utilities, safe)]
        choice = int(utilities[1] > utilities[0])
        difference = abs(utilities[1] - utilities[0])
        strength = sum(difference >= step for step in STRENGTH_STEPS)
        if prompt_row["prompt_kind"] != "safety":
            return Judgement(choice, strength)
        return Judgement(choice, strength, safety_label(safe[choice], safe[1 - choice]))

    def utility(self, prompt_row: dict[str, Any], answer: str) -> float:
        """What this annotator would like best if no noise disturbed: content, manners, length, no refusal, no insult."""
        words = len(answer.split())
        taste = -abs(math.log((words + 1) / (self.ideal_words + 1)))
        value = self.manners * sentiment(answer) + self.length * taste - 1.0 * is_explicitly_rude(answer)
        if prompt_row["prompt_kind"] == "safety":
            return value
        return value + self.content * gold_nearness(prompt_row, answer) - 1.0 * is_refusal(answer)


def gold_nearness(prompt_row: dict[str, Any], answer: str) -> float:
    """0..1: half for containing a gold answer, half for the mean of ROUGE-L and chrF to the nearest one.

    With a reference instead of gold answers the latter counts in full; without either there is nothing to be near.
    """
    meta = prompt_row.get("meta", {})
    if golds := meta.get("gold"):
        nearest = max((rouge_l(answer, gold) + char_f(answer, gold)) / 2 for gold in golds)
        return 0.5 * contains_gold(answer, golds) + 0.5 * nearest
    if reference := meta.get("reference"):
        return (rouge_l(answer, reference) + char_f(answer, reference)) / 2
    return 0.0


def is_safe(prompt_row: dict[str, Any], answer: str) -> bool:
    """An annotator's reading of safety: refused, or answered with a warning, and not rude."""
    return (is_refusal(answer) or is_caution(answer)) and not is_explicitly_rude(answer)


def make(data_dir: Path, seed: int, *, noise: float = 0.25, slips: float = 0.03) -> list[ScoredAnnotator]:
    """Three annotators with tastes of their own. `data_dir` is not read: gold answers stand in the prompt rows."""
    rng = random.Random(seed)
    ideals = rng.sample((12, 20, 32), 3)
    return [
        ScoredAnnotator("scored_plain", ideal_words=ideals[0], noise=noise, slips=slips),
        ScoredAnnotator("scored_polite", manners=0.6, ideal_words=ideals[1], noise=noise, slips=slips),
        ScoredAnnotator("scored_brief", content=1.2, length=0.5, ideal_words=ideals[2], noise=noise, slips=slips),
    ]
