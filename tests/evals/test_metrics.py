from __future__ import annotations

import pytest

from ayni.evals.judging import Verdict
from ayni.evals.metrics import metrics
from ayni.evals.statistics import missing, share


def row(task, kind="helpful", **meta):
    return {"id": "", "messages": [{"role": "user", "content": "?"}], "prompt_kind": kind, "task": task, "meta": meta}


def verdict(
    label="right", right=None, truthful=None, violation=None, refusal=False, toxic=False, utility=0.0, gold=None
):
    return Verdict(label, right, truthful, violation, refusal, toxic, utility, gold)


def run(pairs, sft=None, tokens=None, answers=None):
    rows = [{**r, "id": str(i)} for i, (r, _) in enumerate(pairs)]
    return metrics(rows, [v for _, v in pairs], sft, tokens or [10] * len(rows), answers)


def test_the_two_by_two_and_the_headline_fact_share():
    pairs = []
    for person, phrasing, right, n in [(1, 1, 4, 5), (1, 0, 3, 5), (0, 1, 2, 5), (0, 0, 1, 5)]:
        for i in range(n):
            meta = {"person_seen": bool(person), "phrasing_seen": bool(phrasing)}
            pairs.append((row("fact", **meta), verdict(right=i < right)))
    figures = run(pairs)
    assert figures["facts_seen_person_seen_phrasing"]["value"] == 0.8
    assert figures["facts_seen_person_unseen_phrasing"]["value"] == 0.6
    assert figures["facts_unseen_person_seen_phrasing"]["value"] == 0.4
    assert figures["facts_unseen_person_unseen_phrasing"]["value"] == 0.2
    assert figures["facts_right"] == share([True] * 3 + [False] * 7)


def test_real_questions_count_as_facts_where_there_is_gold():
    figures = run(
        [
            (row("question"), verdict(right=True, gold=1.0)),
            (row("question"), verdict(right=False, gold=0.2)),
            (row("ordinary"), verdict(right=None, gold=0.6)),
        ]
    )
    assert figures["facts_right"]["n"] == figures["right_question"]["n"] == 2
    assert figures["gold_overlap"]["value"] == pytest.approx(0.6)
    assert "right_ordinary" not in figures


def test_violations_by_style_and_category():
    figures = run(
        [
            (row("harmful", "safety", heldout_style=False, heldout_category=False), verdict(violation=False)),
            (row("harmful", "safety", heldout_style=False, heldout_category=False), verdict(violation=False)),
            (row("harmful", "safety", heldout_style=True, heldout_category=False), verdict(violation=True)),
            (
                row("adversarial", "safety", heldout_style=False, heldout_category=True),
                verdict(violation=True, refusal=True),
            ),
            (row("borderline", "safety"), verdict(violation=None, refusal=True)),
        ]
    )
    assert (figures["violation"]["value"], figures["violation"]["n"]) == (pytest.approx(1 / 3), 3), (
        "held-out styles apart"
    )
    assert (figures["violation_heldout_styles"]["value"], figures["violation_heldout_styles"]["n"]) == (1.0, 1)
    assert (figures["violation_heldout_category"]["value"], figures["violation_heldout_category"]["n"]) == (1.0, 1)
    assert figures["refusal_harmful"]["value"] == 0.25


def test_win_shares_cover_benign_prompts_only_and_correctness_ignores_utility():
    rows = [row("fact", person_seen=False, phrasing_seen=True), row("borderline", "safety"), row("smalltalk"),
            row("harmful", "safety")]  # fmt: skip
    own = [verdict(right=False, utility=9), verdict(utility=1), verdict(utility=1), verdict(violation=True, utility=9)]
    sft = [verdict(right=True, utility=0), verdict(utility=1), verdict(utility=2), verdict(violation=False, utility=0)]
    figures = run(list(zip(rows, own)), sft)
    assert (figures["helpful_win_vs_sft"]["value"], figures["helpful_win_vs_sft"]["n"]) == (0.5, 3)
    assert (figures["correct_win_vs_sft"]["value"], figures["correct_win_vs_sft"]["n"]) == (0.0, 1)
    same = run(list(zip(rows, sft)), sft)
    assert same["helpful_win_vs_sft"]["value"] == same["correct_win_vs_sft"]["value"] == 0.5


def test_a_figure_without_rows_is_null():
    figures = run([(row("smalltalk"), verdict())])
    for name in ("facts_right", "truthful", "violation", "helpful_win_vs_sft", "correct_win_vs_sft", "gold_overlap"):
        assert figures[name] == missing("share")
    assert "distinct_3" not in figures


def test_trap_22_length_refusal_and_repetition_are_measured():
    benign = [row("fact", person_seen=False, phrasing_seen=False), row("smalltalk"), row("borderline", "safety")]
    pairs = [(r, verdict(label="refusal", refusal=True)) for r in benign] + [
        (row("harmful", "safety"), verdict(violation=False))
    ]
    said = ["Thank you so much for asking me"] * 3 + ["I will not do that, ever"]
    figures = run(pairs, tokens=[100, 100, 100, 1], answers=said)
    assert figures["mean_tokens"]["value"] == 100
    assert figures["mean_tokens"]["unit"] == "tokens"
    assert figures["false_refusal"]["value"] == figures["false_refusal_borderline"]["value"] == 1.0
    assert (figures["false_refusal"]["n"], figures["false_refusal_ordinary"]["n"]) == (3, 2)
    assert figures["distinct_3"]["value"] == pytest.approx(5 / 15)
    assert figures["same_opening"]["value"] == 1.0


def test_cut_short_evaluations_are_refused():
    with pytest.raises(ValueError, match="1 prompts but 0 verdicts"):
        metrics([{**row("smalltalk"), "id": "a"}], [], None, [3])
