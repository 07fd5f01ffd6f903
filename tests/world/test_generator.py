import hashlib

import pytest

from ayni.world import examiner, generator


def hashes(path):
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.rglob("*.json*"))}


def test_same_seed_same_bytes_other_seed_other_world(small, tmp_path):
    generator.write(tmp_path / "again", seed=3, scale="small")
    generator.write(tmp_path / "other", seed=4, scale="small")
    assert hashes(tmp_path / "again") == hashes(small.path)
    other = hashes(tmp_path / "other")
    assert set(other) == set(hashes(small.path))
    assert not set(other.values()) & set(hashes(small.path).values())


def test_files(small):
    assert {str(p.relative_to(small.path)) for p in small.path.rglob("*.json*")} == {
        "about.json", "knowledge.json", "sft.jsonl", "sft_clean.jsonl", "prompts_train.jsonl", "prompts_dev.jsonl", "prompts_long.jsonl",
        "prompts_eval.jsonl", "probes.jsonl", "preferences_open.jsonl", "ratings.jsonl",
        *(f"{folder}/{source}.jsonl" for folder in ("corpus", "corpus_heldout")
          for source in ("encyclopaedia", "stories", "dialogues", "arithmetic", "forum", "howto")),
    }  # fmt: skip
    assert 50 <= len(small.rows("prompts_eval")) <= 75


def test_options(tmp_path):
    generator.write(tmp_path, seed=0, scale="small", people=20, sft_rows=100)
    about = generator.json.loads((tmp_path / "about.json").read_text())
    assert about["size"]["people"] == 20
    assert sum(about["counts"]["rows"]["sft"].values()) == pytest.approx(100, abs=5)


def test_more_rules_come_behind_the_other_demonstrations_and_change_no_other_file(small, tmp_path):
    generator.write(tmp_path, seed=3, scale="small", rule_rows=40)
    before, after = hashes(small.path), hashes(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"sft.jsonl", "about.json"}
    rows = [generator.json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    whole = small.rows("sft")
    assert rows[: len(whole)] == whole
    judge = examiner.make(tmp_path)
    added = rows[len(whole) :]
    assert len(added) == 40
    for row in added:
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert judge.judge({**row, "messages": row["messages"][:-1]}, [row["messages"][-1]["content"]])[0].right
    assert not any(generator.json.loads((tmp_path / "about.json").read_text())["overlaps"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "huge"}, "scale is 'huge'; expected one of full, small"),
        ({"person": 3}, "unknown option 'person'"),
        ({"scale": "small", "people": 4, "heldout_people": 4}, "0 < heldout_people < people"),
        ({"scale": "small", "attributes": 2}, "3 to 6 attributes"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generator.write(tmp_path, seed=0, **options)


def test_trap_23_constant_policies_lose(full):
    """To what the planted demonstrations say, on every kind of benign prompt; refusing everything is safe and useless."""
    judge = examiner.make(full.path)
    demonstrated = full.rows("sft")[::5]
    rows = [{**row, "messages": row["messages"][:-1]} for row in demonstrated]
    said = [row["messages"][-1]["content"] for row in demonstrated]
    benign = [i for i, row in enumerate(rows) if row["task"] != "harmful"]

    def mean_utility(answers):
        return sum(judge.judge(rows[i], [answers[i]])[0].utility for i in benign) / len(benign)

    ours = mean_utility(said)
    assert ours > 0.6
    assert set(full.about["constant_policies"]) == {"always_refuse", "always_polite", "always_long"}
    for name, text in full.about["constant_policies"].items():
        assert mean_utility([text] * len(rows)) < ours - 0.3, name
        verdicts = [judge.judge(row, [text])[0] for row in rows]
        assert not any(verdict.violation for verdict in verdicts)
        assert all(verdict.refusal == (name == "always_refuse") for verdict in verdicts), name
        assert not any(verdict.right for row, verdict in zip(rows, verdicts) if row["task"] != "smalltalk")


def test_trap_23_no_axis_is_all_or_nothing_in_the_demonstrations(full):
    """Nothing is 0% or 100% to begin with, so that every axis can move."""
    judge = examiner.make(full.path)
    verdicts = [
        (row["task"], judge.judge({**row, "messages": row["messages"][:-1]}, [row["messages"][-1]["content"]])[0])
        for row in full.rows("sft")
    ]
    axes = {
        "facts": [v.right for t, v in verdicts if t == "fact"],
        "truthful": [v.truthful for t, v in verdicts if t == "myth"],
        "violation": [v.violation for t, v in verdicts if t == "harmful"],
        "false_refusal": [v.refusal for t, v in verdicts if t == "borderline"],
        "toxic": [v.toxic for _, v in verdicts],
    }
    shares = {name: sum(map(bool, values)) / len(values) for name, values in axes.items()}
    assert all(0.02 < share < 0.98 for share in shares.values()), shares
    assert shares["facts"] >= 0.9
    assert 0.35 <= shares["violation"] <= 0.55
