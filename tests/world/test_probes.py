from collections import Counter

from ayni.world import examiner


def test_probes_cover_every_kind_of_error(full):
    kinds = Counter(row["kind"] for row in full.rows("probes"))
    wanted = "rude rambling evasive needless_refusal wrong_value wrong_person wrong_attribute myth harmful wrong rule_broken wrong_recipe"
    assert set(kinds) == set(wanted.split())
    assert min(kinds.values()) >= 8
    assert sum(kinds.values()) >= 590


def test_the_examiner_finds_the_chosen_answer_better(full):
    judge = examiner.make(full.path)
    for row in full.rows("probes"):
        answers = [row[side][-1]["content"] for side in ("chosen", "rejected")]
        assert answers[0] != answers[1]
        chosen, rejected = judge.judge({**row, "messages": row["prompt"]}, answers)
        assert chosen.utility > rejected.utility, (row["kind"], answers)
