"""Which rows a reward model sees: the paper's mixes, the guard's, and what is held out."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ayni.config import RewardSettings
from ayni.feedback.mix import gather, is_open, mix, split_by_prompt, split_open

Row = dict[str, Any]


def rows(helpful: int, safety: int, open_helpful: int = 0, open_safety: int = 0) -> list[Row]:
    kinds = [("helpful", "fact", helpful), ("safety", "harmful", safety)]
    kinds += [("helpful", "open", open_helpful), ("safety", "open:hh", open_safety)]
    return [
        {"prompt_kind": kind, "source": source, "id": f"{source}-{i}"}
        for kind, source, count in kinds
        for i in range(count)
    ]


def counts(mixed: list[Row]) -> list[int]:
    """Own helpful, own safety, open helpful, open safety."""
    of = Counter((is_open(row), row["prompt_kind"]) for row in mixed)
    return [of[is_open_, kind] for is_open_ in (False, True) for kind in ("helpful", "safety")]


def mixed(given: list[Row], kind: Any, **settings: Any) -> list[int]:
    return counts(mix(given, kind, RewardSettings(**settings), random.Random(0)))


def test_the_papers_mix_of_our_own_pairs() -> None:
    """Helpfulness: all of its own and at most equal parts of the rest. Safety: 90% of its own, 10% helpfulness."""
    assert mixed(rows(600, 300), "helpfulness") == [600, 300, 0, 0]
    assert mixed(rows(300, 600), "helpfulness") == [300, 300, 0, 0]
    assert mixed(rows(600, 300), "safety") == [round(300 / 9), 300, 0, 0]


def test_the_papers_mix_with_open_pairs() -> None:
    helpful, safety, open_helpful, open_safety = mixed(rows(400, 400, 300, 100), "helpfulness")
    assert helpful == safety + open_helpful + open_safety == 400
    # uniform over the 800 others: about 200, 150 and 50 of the 400 drawn (hypergeometric, sigma at most 10)
    assert abs(safety - 200) < 40
    assert abs(open_helpful - 150) < 40
    assert abs(open_safety - 50) < 25

    helpful, safety, open_helpful, open_safety = mixed(rows(400, 350, 400, 100), "safety")
    assert (safety, open_safety) == (350, 100), "all own safety and all open harmless pairs"
    assert helpful + open_helpful == 50, "a tenth of the whole: 50 of 500"
    assert min(helpful, open_helpful) > 10, "own and open helpfulness alike"


def test_other_mixes_and_the_guard() -> None:
    given = rows(50, 40, 30, 20)
    assert mixed(given, "helpfulness", mix="own") == [50, 0, 0, 0]
    assert mixed(given, "safety", mix="own") == [0, 40, 0, 0]
    for kind in ("helpfulness", "safety"):
        assert mixed(given, kind, mix="both") == [50, 40, 30, 20]
    for name in ("paper", "own", "both"):
        assert mixed(given, "guard", mix=name) == [0, 0, 30, 20]


def test_fewer_pairs() -> None:
    """Own pairs are bounded, and what the mix adds is counted from them; both: everything is."""
    given = rows(500, 300, 100, 100)
    helpful, *others = mixed(given, "helpfulness", pairs=80)
    assert (helpful, sum(others)) == (80, 80)
    helpful, safety, open_helpful, open_safety = mixed(given, "safety", pairs=80)
    assert (safety, open_safety, helpful + open_helpful) == (80, 100, 20)
    assert sum(mixed(given, "helpfulness", pairs=80, mix="both")) == 80
    assert sum(mixed(given, "guard", pairs=80)) == 80
    first, second = (mix(given, "helpfulness", RewardSettings(pairs=80, mix="own"), random.Random(s)) for s in (1, 2))
    assert first != second


def test_a_prompt_is_held_out_with_all_its_pairs() -> None:
    given = [{"prompt": [{"role": "user", "content": f"Who sells {i // 4} loaves?"}], "i": i} for i in range(200)]
    kept, held_out = split_by_prompt(given, random.Random(3))
    assert sorted(row["i"] for row in kept + held_out) == list(range(200))
    assert 20 <= len(held_out) < 24
    assert not {str(row["prompt"]) for row in kept} & {str(row["prompt"]) for row in held_out}
    assert split_open(given) == split_open(given), "the same for every model"


def preference(i: int, **more: Any) -> Row:
    sides = {"chosen": "The smith does.", "rejected": f"No idea {i}."}
    return {
        "prompt": [{"role": "user", "content": f"Who mends wheel {i}?"}],
        **{side: [{"role": "assistant", "content": text}] for side, text in sides.items()},
        **more,
    }


def write(path: Path, given: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def test_files_of_open_preferences_are_open_whatever_they_call_their_source(tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", [preference(i) for i in range(40)])
    other = write(tmp_path / "web.jsonl", [preference(i, source="forum") for i in range(40, 70)])
    train, held_out = gather([own], [other], "helpfulness", random.Random(0))
    assert counts(train) == [36, 0, 27, 0]
    assert counts(held_out) == [4, 0, 3, 0]
    assert {row["source"] for row in train} == {"own", "open:forum"}


def test_trap_21_what_one_file_holds_out_no_other_trains_on(tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", [preference(i) for i in range(40)])
    other = write(tmp_path / "web.jsonl", [preference(i, chosen="He does.") for i in range(40)])
    train, held_out = gather([own], [other], "helpfulness", random.Random(0))
    prompts = [{row["prompt"][0]["content"] for row in part} for part in (train, held_out)]
    assert not prompts[0] & prompts[1]
    assert 5 <= len(prompts[1]) <= 8, "four of each, and they may coincide"
    assert len(train) == 2 * (40 - len(prompts[1]))


def test_a_plain_file_belongs_to_the_model_it_is_given_to(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jsonl", [preference(i) for i in range(20)])
    assert counts(gather([plain], [], "safety", random.Random(0))[0]) == [0, 18, 0, 0]
    assert counts(gather([plain], [], "guard", random.Random(0))[0]) == [0, 0, 18, 0]


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    one_prompt = write(tmp_path / "one.jsonl", [{**preference(0), "prompt_kind": "safety"}])
    with pytest.raises(
        ValueError, match=r"one\.jsonl: no preference with prompt_kind 'safety' left to train the safety"
    ):
        gather([one_prompt], [], "safety", random.Random(0))
    with pytest.raises(ValueError, match="no file given: no preference with source 'open'"):
        gather([], [], "guard", random.Random(0))
