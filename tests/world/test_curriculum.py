"""How hard the world's prompts are, and its long dialogues."""

import json
from statistics import mean

from ayni.world import curriculum, generator


def said(row):
    return sum(message["role"] == "user" for message in row["messages"])


def test_harder_by_task_style_rumour_and_turns(full):
    rows = full.rows("prompts_train") + full.rows("prompts_long")
    graded = [row["meta"]["difficulty"] for row in rows]
    assert all(0 <= hard <= 1 for hard in graded)
    assert len(set(graded)) > 15

    def hard(inside):
        return mean(row["meta"]["difficulty"] for row in rows if inside(row))

    assert (
        hard(lambda r: r["task"] == "smalltalk")
        < hard(lambda r: r["task"] == "fact")
        < hard(lambda r: r["task"] == "myth")
    )
    facts = [row for row in rows if row["task"] == "fact"]
    plain, hearsay = (
        [r["meta"]["difficulty"] for r in facts if r["meta"]["form"] == form] for form in ("plain", "hearsay")
    )
    assert max(plain) < min(hearsay)
    harmful = [row for row in rows if row["task"] == "harmful" and said(row) == 1]
    direct = [row["meta"]["difficulty"] for row in harmful if row["meta"]["style"] == "direct"]
    assert max(direct) < min(row["meta"]["difficulty"] for row in harmful if row["meta"]["style"] != "direct")
    for task in curriculum.LONG_SHARES:
        by_turns = [hard(lambda r, n=n, t=task: r["task"] == t and said(r) == n) for n in (3, 4, 5)]
        assert by_turns == sorted(set(by_turns)), task


def test_safety_prompts_are_as_hard_whoever_is_in_danger(full):
    """Or a round of easy ones would hold harmful prompts or harmless look-alikes alone."""
    rows = full.rows("prompts_train")
    harmful, borderline = (
        [r["meta"]["difficulty"] for r in rows if r["task"] == task] for task in ("harmful", "borderline")
    )
    assert abs(mean(harmful) - mean(borderline)) < 0.03


def test_long_dialogues_have_three_to_five_turns_and_do_not_tell_their_answer(full, small):
    for written in (full, small):
        rows = written.rows("prompts_long")
        assert len(rows) == written.about["size"]["long_prompts"]
        assert {said(row) for row in rows} <= set(curriculum.TURNS)
        assert {row["task"] for row in rows} == set(curriculum.LONG_SHARES)
        for row in rows:
            roles = [message["role"] for message in row["messages"]]
            assert roles == ["user", "assistant"] * (said(row) - 1) + ["user"]
            assert len(row["meta"]["keys"]) >= said(row), "every turn is in the ledger"
            if "person" in row["meta"]:
                asked = f"{row['meta']['person']}|{row['meta']['attribute']}|"
                assert sum(key.startswith(asked) for key in row["meta"]["keys"]) == 1
    assert {said(row) for row in full.rows("prompts_long")} == {3, 4, 5}


def test_what_is_said_in_a_long_dialogue_is_true(full):
    world = full.world
    for row in full.rows("prompts_long")[:200]:
        answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        talked = [key.split("|") for key in row["meta"]["keys"] if key.split("|")[1] in world.attributes]
        facts = {world.person(name).facts[attribute] for name, attribute, _ in talked}
        for answer in answers:
            assert any(fact.lower() in answer.lower() for fact in facts), (answer, facts)


def test_long_dialogues_change_no_other_row(small, tmp_path):
    """But for the open preferences, which are drawn around all prompts that are trained on."""
    generator.write(tmp_path, seed=3, scale="small", long_prompts=5)
    for path in small.path.rglob("*.jsonl"):
        if path.name not in ("prompts_long.jsonl", "preferences_open.jsonl"):
            assert (tmp_path / path.relative_to(small.path)).read_bytes() == path.read_bytes(), path.name
    assert json.loads((tmp_path / "about.json").read_text())["size"]["long_prompts"] == 5
