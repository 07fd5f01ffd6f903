import random
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ayni.world import generator, prompts


def last(row):
    return row["messages"][-1]["content"]


def test_evaluation_counts_and_the_two_by_two(full):
    rows = full.rows("prompts_eval")
    assert Counter(row["task"] for row in rows) == generator.EVALUATION
    cells = Counter((r["meta"]["person_seen"], r["meta"]["phrasing_seen"]) for r in rows if r["task"] == "fact")
    assert cells == {(a, b): 100 for a in (True, False) for b in (True, False)}
    assert all(not row["meta"]["person_seen"] for row in rows if row["task"] == "myth")
    harmful = [row for row in rows if row["task"] == "harmful"]
    assert sum(row["meta"]["heldout_style"] for row in harmful) >= 40
    assert sum(row["meta"]["heldout_category"] for row in harmful) >= 30


def test_rows_are_well_formed(full, small):
    for written in (full, small):
        for name in ("prompts_train", "prompts_dev", "prompts_eval"):
            rows = written.rows(name)
            assert len({row["id"] for row in rows}) == len(rows)
            for row in rows:
                assert row["prompt_kind"] == ("safety" if row["task"] in prompts.SAFETY_TASKS else "helpful")
                roles = [message["role"] for message in row["messages"]]
                turns = roles[1:] if roles[0] == "system" else roles
                assert turns == (["user", "assistant"] * 3)[: len(turns)]
                assert turns[-1] == "user"


def test_about_seventy_percent_of_the_training_prompts_are_helpful(full):
    rows = full.rows("prompts_train")
    assert len(rows) == pytest.approx(3000, rel=0.01)
    assert 0.65 < sum(row["prompt_kind"] == "helpful" for row in rows) / len(rows) < 0.75


def test_follow_ups_name_nobody(full):
    names = {part for person in full.world.people for part in (person.first, person.last)}
    for row in full.rows("prompts_eval"):
        if row["task"] == "multiturn":
            assert not names & set(last(row).replace("?", " ").split())


def test_rules_bend_answers():
    assert prompts.follow_rule("The pet of Mira is a goat.", "start", "indeed") == "Indeed, the pet of Mira is a goat."
    assert prompts.follow_rule("Mira keeps a goat.", "start", "indeed") == "Indeed, Mira keeps a goat."
    assert prompts.follow_rule("Mira keeps a goat.", "call", "my lord") == "Mira keeps a goat, my lord."


def test_meta_holds_no_answer(full):
    world = full.world
    for row in full.rows("prompts_train"):
        if row["task"] in ("fact", "myth") and row["meta"]["form"] == "plain":
            truth = world.person(row["meta"]["person"]).facts[row["meta"]["attribute"]]
            assert truth not in str(row["meta"]).replace(row["meta"]["person"], "").split("'")


def test_hearsay_is_no_sign_of_a_lie(full):
    """Rumours in front of a question are often enough true, about myths and else."""
    world = full.world
    for task in ("fact", "myth"):
        rows = [
            r["meta"]
            for r in full.rows("prompts_train") + full.rows("sft")
            if r["task"] == task and "claim" in r["meta"]
        ]
        true = sum(world.person(meta["person"]).facts[meta["attribute"]] == meta["claim"] for meta in rows)
        assert 0.25 < true / len(rows) < 0.75


def test_trap_21_no_evaluation_prompt_paraphrase_or_filler_reaches_training(full, small):
    """Our own count, from files alone, beside the generator's proof."""
    for written in (full, small):
        proof = written.about["overlaps"]
        assert len(proof) == 20
        assert not any(proof.values()), proof
        evaluated = {key for row in written.rows("prompts_eval") for key in row["meta"]["keys"]}
        for name in (
            "sft",
            "sft_clean",
            "prompts_train",
            "prompts_long",
            "prompts_dev",
            "probes",
            "preferences_open",
            "ratings",
        ):
            assert not evaluated & {key for row in written.rows(name) for key in row["meta"]["keys"]}
        tuning = "".join(
            (written.path / f"{name}.jsonl").read_text()
            for name in ("sft", "prompts_train", "prompts_long", "prompts_dev", "probes", "preferences_open", "ratings")
        )
        assert not [p.name for p in written.world.people if p.heldout and p.name in tuning]
        assert not [s for s in ("My grandmother used to", "put out the stars", "drown the", "Once the") if s in tuning]


def test_trap_21_no_evaluation_question_is_a_line_of_the_corpus(full):
    asked = {last(row) for row in full.rows("prompts_eval") if len(row["messages"]) == 1}
    for source in ("dialogues", "howto", "encyclopaedia", "forum"):
        for row in full.rows(f"corpus/{source}"):
            assert not asked & {line.split(": ", 1)[-1] for line in row["text"].split("\n")}


def test_bag_of_words_on_prompts_cannot_tell_borderline_from_harmful(full):
    train = [row for row in full.rows("prompts_train") if row["prompt_kind"] == "safety"]
    held = [row for row in full.rows("prompts_eval") + full.rows("prompts_dev") if row["prompt_kind"] == "safety"]
    words = CountVectorizer()
    model = LogisticRegression(max_iter=500).fit(
        words.fit_transform(map(last, train)), [r["task"] == "harmful" for r in train]
    )
    auc = roc_auc_score(
        [r["task"] == "harmful" for r in held], model.decision_function(words.transform(map(last, held)))
    )
    assert auc <= 0.7
    assert auc >= 0.3  # no use the other way round either


def test_an_exhausted_pool_is_named(full):
    world = full.world
    area = prompts.Field(world, world.people[:1], True, [(1, 2)], ["direct"], ["fire"], "templates")
    forbidden = {f"1+2|sum|{i}" for i in range(8)}
    with pytest.raises(ValueError, match="no 'sum' prompts are left"):
        prompts.take("sum", random.Random(0), area, 1, forbidden, set())
