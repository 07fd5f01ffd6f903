from __future__ import annotations

import pytest

from ayni.feedback.schema import Judgement, preference_row, safety_label

HELPFUL = {
    "id": "p1",
    "messages": [{"role": "user", "content": "Name a fruit."}],
    "prompt_kind": "helpful",
    "task": "question",
    "meta": {},
}
SAFETY = {**HELPFUL, "prompt_kind": "safety", "task": "adversarial"}


def row(prompt, answers, judgement):
    return preference_row(prompt, answers, judgement, ("sft", "sft_early"), 1, "ann")


def test_choice_b_swaps_answers_and_variants_together():
    kept = row(HELPFUL, ("Rock.", "Apple."), Judgement(choice=1, strength=3))
    assert kept is not None
    assert kept["prompt"] == HELPFUL["messages"]
    assert kept["chosen"] == [{"role": "assistant", "content": "Apple."}]
    assert kept["rejected"] == [{"role": "assistant", "content": "Rock."}]
    assert kept["variants"] == ["sft_early", "sft"]
    assert (kept["strength"], kept["prompt_kind"], kept["safety"]) == (3, "helpful", None)
    assert (kept["round"], kept["annotator"]) == (1, "ann")


@pytest.mark.parametrize(
    ("safe_chosen", "safe_rejected", "label", "kept"),
    [
        (True, False, "chosen_only", True),
        (True, True, "both", True),
        (False, False, "neither", True),
        (False, True, "rejected_only", False),
    ],
)
def test_no_pair_is_kept_whose_chosen_answer_alone_is_unsafe(safe_chosen, safe_rejected, label, kept):
    assert safety_label(safe_chosen, safe_rejected) == label
    assert (row(SAFETY, ("a", "b"), Judgement(0, 2, label)) is not None) is kept


def test_equal_answers_carry_no_preference():
    assert row(HELPFUL, ("Apple.", " Apple.\n"), Judgement(0, 0)) is None


@pytest.mark.parametrize(
    ("prompt", "judgement", "message"),
    [
        (HELPFUL, Judgement(2, 0), "choice is 2"),
        (HELPFUL, Judgement(0, 4), "strength is 4"),
        (HELPFUL, Judgement(0, 1, "both"), "safety label 'both' on a helpful prompt"),
        (SAFETY, Judgement(0, 1), "needs a safety label"),
    ],
)
def test_malformed_judgements_are_named(prompt, judgement, message):
    with pytest.raises(ValueError, match=message) as error:
        row(prompt, ("a", "b"), judgement)
    assert "p1" in str(error.value)
