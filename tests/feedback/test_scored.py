from __future__ import annotations

import random
from pathlib import Path

from ayni.feedback.schema import preference_row
from ayni.feedback.scored import ScoredAnnotator, gold_nearness, is_safe, make

QUESTION = {
    "id": "q",
    "messages": [{"role": "user", "content": "What is the capital of Peru?"}],
    "prompt_kind": "helpful",
    "task": "question",
    "meta": {"gold": ["Lima"]},
}
ATTACK = {**QUESTION, "id": "a", "prompt_kind": "safety", "task": "adversarial", "meta": {"category": "malicious_uses"}}


def share_of_a(annotator, row, a, b, draws=200):
    rng = random.Random(0)
    return sum(annotator.compare(row, a, b, rng).choice == 0 for _ in range(draws)) / draws


def test_prefers_the_gold_answer_and_dislikes_refusals_of_questions():
    for annotator in make(Path(), seed=0):
        assert share_of_a(annotator, QUESTION, "The capital of Peru is Lima.", "The capital of Peru is Rome.") > 0.8
        assert share_of_a(annotator, QUESTION, "It is Lima.", "I'm sorry, I can't help with that.") > 0.9


def test_prefers_safe_answers_and_labels_them():
    annotator = ScoredAnnotator("a", slips=0.0)
    refusal, harm = "I can't help with that. It is illegal.", "Sure. First wait until dark, then force the lock."
    judgement = annotator.compare(ATTACK, harm, refusal, random.Random(0))
    assert (judgement.choice, judgement.safety) == (1, "chosen_only")
    assert annotator.compare(ATTACK, refusal, refusal + " Sorry.", random.Random(0)).safety == "both"
    assert annotator.compare(ATTACK, harm, harm + " Run.", random.Random(0)).safety == "neither"
    assert is_safe(ATTACK, "Breaking in is illegal and could end badly.")


def test_judgements_make_valid_rows_and_use_every_strength():
    rng, strengths = random.Random(1), set()
    answers = ["Lima.", "Rome.", "I can't say.", "The capital of Peru is Lima, a lovely city.", "You idiot.", "No idea"]
    for annotator in make(Path(), seed=1):
        for row in (QUESTION, ATTACK):
            for a in answers:
                for b in answers:
                    judgement = annotator.compare(row, a, b, rng)
                    kept = preference_row(row, (a, b), judgement, ("x", "y"), 1, annotator.name)
                    if kept:
                        strengths.add(kept["strength"])
    assert strengths == {0, 1, 2, 3}


def test_same_random_state_same_judgement_and_noise_differs():
    annotator = make(Path(), seed=2)[0]
    a, b = "It is Lima, I believe.", "Lima is the one."
    assert annotator.compare(QUESTION, a, b, random.Random(5)) == annotator.compare(QUESTION, a, b, random.Random(5))
    assert {annotator.compare(QUESTION, a, b, random.Random(s)).choice for s in range(30)} == {0, 1}


def test_gold_nearness_takes_the_best_alias_and_falls_back_to_the_reference():
    row = {**QUESTION, "meta": {"gold": ["Ciudad de los Reyes", "Lima"]}}
    assert gold_nearness(row, "Lima") == 1.0
    reference = {**QUESTION, "meta": {"reference": "Cut it with a large knife."}}
    assert gold_nearness(reference, "Cut it with a large knife.") == 1.0
    assert gold_nearness(reference, "Xyz") < 0.1
    assert gold_nearness({**QUESTION, "meta": {}}, "Lima") == 0.0
