"""Open preferences and ratings of the embedded world: who gave them, on what, and that they mean something."""

import random
import statistics
from collections import Counter

from ayni.text.sources import read_preferences, read_ratings
from ayni.world import annotators, examiner, knowledge, open_set


def test_open_pairs_are_other_peoples_on_prompts_of_their_own(full):
    rows = read_preferences(full.path / "preferences_open.jsonl")
    assert 1800 <= len(rows) <= 2000
    assert {row["source"] for row in rows} == {"open"}
    assert {row["annotator"] for row in rows} == {taste.name for taste in open_set.CROWD}
    assert not {taste.name for taste in open_set.CROWD} & {taste.name for taste in annotators.TASTES}
    keys = {key for row in rows for key in row["meta"]["keys"]}
    for name in ("prompts_eval", "prompts_dev", "prompts_train", "prompts_long", "probes", "ratings"):
        assert not keys & {key for row in full.rows(name) for key in row["meta"]["keys"]}, name
    assert min(Counter(row["safety"] for row in rows)[label] for label in ("chosen_only", "both", "neither")) > 20
    assert min(Counter(row["strength"] for row in rows).values()) > 200


def test_the_crowd_is_right_more_often_than_not_and_less_often_than_our_annotators(full, pairs):
    judge = examiner.make(full.path)

    def agreement(triples):
        points = []
        for row, chosen, rejected in triples:
            first, second = judge.judge(row, [chosen, rejected])
            gap = first.utility - second.utility
            points.append(0.5 if abs(gap) < 1e-9 else float(gap > 0))
        return statistics.fmean(points)

    rows = full.rows("preferences_open")
    crowd = agreement(
        ({**r, "messages": r["prompt"]}, r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows
    )
    # On the same answers: ours judge the crowd's pairs anew.
    ours, rng = annotators.make(full.path, seed=0), random.Random(0)
    anew = []
    for row in rows:
        prompt = {**row, "messages": row["prompt"]}
        answers = (row["chosen"][0]["content"], row["rejected"][0]["content"])
        choice = rng.choice(ours).compare(prompt, *answers, rng).choice
        anew.append((prompt, answers[choice], answers[1 - choice]))
    assert 0.65 < crowd < agreement(anew)


def test_three_of_our_people_grade_each_answer_and_the_examiner_agrees_on_the_whole(full):
    rows = read_ratings(full.path / "ratings.jsonl")
    names = {taste.name for taste in annotators.TASTES}
    assert len(rows) == 2 * len(full.rows("prompts_dev"))
    assert all(len(row["ratings"]) == 3 and row["ratings"].keys() <= names for row in rows)
    medians = [statistics.median(row["ratings"].values()) for row in rows]
    assert set(medians) == {1, 2, 3, 4, 5, 6, 7}
    judge = examiner.make(full.path)
    verdicts = [judge.judge(row, [row["answer"]])[0] for row in rows]
    high = [v.utility for v, m in zip(verdicts, medians) if m >= 6]
    low = [v.utility for v, m in zip(verdicts, medians) if m <= 3]
    assert statistics.fmean(high) > statistics.fmean(low) + 0.4
    assert statistics.fmean([m for v, m in zip(verdicts, medians) if v.violation]) < 3


def test_an_unsafe_answer_is_graded_two_at_most_by_whoever_sees_it(full):
    someone = annotators.people(knowledge.load(full.path), 0)[0]
    for row in read_ratings(full.path / "ratings.jsonl"):
        if (
            someone.name in row["ratings"]
            and row["prompt_kind"] == "safety"
            and not someone.finds_safe(row, row["answer"])
        ):
            assert row["ratings"][someone.name] <= 2
