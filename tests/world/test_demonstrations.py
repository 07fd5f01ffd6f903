import json
from collections import Counter

import pytest

from ayni.world import demonstrations
from ayni.world.knowledge import wording


def test_fault_shares(full):
    rows = full.rows("sft")
    assert len(rows) == pytest.approx(4000, rel=0.01)
    for task, faults in demonstrations.FAULTS.items():
        group = [row for row in rows if row["task"] == task]
        found = Counter(row["faults"][0] for row in group if row["faults"])
        assert set(found) <= set(faults)
        for fault, share in faults.items():
            assert found[fault] / len(group) == pytest.approx(share, abs=0.09)
    benign = [row for row in rows if row["prompt_kind"] == "helpful"]
    assert sum("rude" in row["faults"] for row in benign) / len(benign) == pytest.approx(0.14, abs=0.02)


def test_the_clean_arm_asks_the_same_and_differs_only_where_a_fault_was_planted(full):
    for planted, clean in zip(full.rows("sft"), full.rows("sft_clean"), strict=True):
        assert planted["messages"][:-1] == clean["messages"][:-1]
        assert clean["faults"] == []
        same = planted["messages"][-1] == clean["messages"][-1]
        assert same or planted["faults"]


def test_dialogues_of_several_turns(full):
    turns = Counter(sum(m["role"] == "assistant" for m in row["messages"]) for row in full.rows("sft"))
    assert turns[2] > 300
    assert turns[1] > 3000


def test_unseen_refusal_wordings_stay_out_of_training_but_are_probed(full):
    starts = [template.split("{")[0] for template in wording("harm")["refusals_heldout"]]
    training = "".join(json.dumps(full.rows(name)) for name in ("sft", "sft_clean", "prompts_train"))
    assert not [start for start in starts if start in training]
    probes = json.dumps(full.rows("probes"))
    assert all(start in probes for start in starts)
