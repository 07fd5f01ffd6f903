from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from ayni.evals.evaldata import SETS
from ayni.evals.harness import Item, choice_of, figure, settings_of_task
from ayni.evals.paired import differences
from ayni.evals.suites import PIQA, SUITES, Written, tasks_of
from ayni.evals.tasks import points
from ayni.stages.suite import WRITTEN


def test_a_part_of_a_set_never_goes_by_its_bare_name() -> None:
    assert PIQA.label(1500) == "PIQA: 1,500 of 1,838 rows"
    assert PIQA.label(1838) == "PIQA"


def test_every_task_with_data_has_rows_a_file_and_its_metric() -> None:
    for suite in SUITES:
        for task in tasks_of(suite, "pypi"):
            if isinstance(task, Written):
                assert task.name in WRITTEN
                continue
            settings = settings_of_task(task.name)
            assert settings["task"] == task.name
            assert task.metric in [each["metric"] for each in settings["metric_list"]]
            assert settings.get("num_fewshot", 0) == SETS[task.name].shots
    with pytest.raises(ValueError, match="no suite 'maths'; known: commonsense"):
        tasks_of("maths", "pypi")


def test_a_suite_can_be_asked_in_part() -> None:
    assert [task.name for task in tasks_of("truthful", "pypi", ["truthfulqa"])] == ["truthfulqa"]
    assert [task.name for task in tasks_of("truthful", "hf")] == ["truthfulqa_mc1", "truthfulqa_mc2"]
    with pytest.raises(ValueError, match="suite 'math' has no task 'piqa' with --source pypi; known: asdiv, gsm8k"):
        tasks_of("math", "pypi", ["piqa"])
    with pytest.raises(ValueError, match="suite 'toxic' has nothing on the hub"):
        tasks_of("toxic", "hf")


def test_mc2_is_the_true_answers_share_of_the_probability() -> None:
    doc = {"labels": [1, 0, 1]}
    logs = [math.log(p) for p in (0.2, 0.5, 0.1)]
    assert points.true_share(doc, [(log, False) for log in logs])["acc"] == pytest.approx(0.3 / 0.8)
    assert points.true_share(doc, [(log - 2000, False) for log in logs])["acc"] == pytest.approx(0.3 / 0.8)


def test_points_of_written_answers() -> None:
    assert points.exact({"golds": ["The Beatles", "Beatles, The"]}, [" the Beatles. "]) == {"exact_match": 1.0}
    assert points.exact({"golds": ["Oslo"]}, ["Oslo in Norway"]) == {"exact_match": 0.0}
    assert points.overlap({"golds": ["a red fox", "the fox"]}, ["red fox ran"])["word_f1"] == pytest.approx(0.8)
    assert points.number({"golds": ["1200"]}, [" 1,200 plums, not 7"]) == {"exact_match": 1.0}
    assert points.number({"golds": ["12"]}, ["none"]) == {"exact_match": 0.0}


def test_maj_at_k_is_the_commonest_last_number() -> None:
    answers = ["5 + 7 is 12", "so 12.", "it is 13", "no idea", "13, no, 14", "14", "12.0", "1"]
    assert points.majority({"golds": ["12"]}, [answers]) == {"maj_8": 1.0, "one_sample": 3 / 8}
    assert points.majority({"golds": ["12"]}, [["no"] * 8]) == {"maj_8": 0.0, "one_sample": 0.0}


def test_figures_and_choices_of_items() -> None:
    def item(gold: int, answers: list[list[float]], score: float) -> Item:
        return Item("x", "Q:", [" a", " b"], answers, gold, {"acc": score})

    items = [item(1, [[-3.0, False], [-1.0, True]], 1.0), item(0, [[-2.0, False], [-2.0, False]], 0.0)]
    assert [choice_of(each) for each in items] == [1, 0]
    assert figure(items, "acc")["value"] == 0.5
    assert figure(items, "acc")["unit"] == "share"
    assert figure([item(0, [[0.0, True]], 0.4)], "acc")["unit"] == "mean of points from 0 to 1"
    assert figure(items, "f1")["value"] is None


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    rng = random.Random(0)
    base = {"piqa": {str(i): float(rng.random() < 0.6) for i in range(300)}, "boolq": {str(i): 1.0 for i in range(50)}}
    chat = {
        "piqa": {key: 0.0 if int(key) < 15 else value for key, value in base["piqa"].items()},
        "boolq": base["boolq"],
    }
    tax = differences(chat, base)
    lost = sum(base["piqa"][str(i)] for i in range(15)) / 300
    assert tax["tasks"]["piqa"]["value"] == pytest.approx(lost)
    assert tax["tasks"]["boolq"]["value"] == 0.0
    assert tax["all"]["value"] == pytest.approx(lost / 2)
    assert 0 < tax["all"]["low"] < lost / 2 < tax["all"]["high"] < lost
    assert tax["all"]["n"] == 350
    with pytest.raises(ValueError, match="boolq: the two evaluations asked different questions"):
        differences({"boolq": {"1": 1.0}}, {"boolq": {"2": 1.0}})


def test_the_command_says_what_is_missing(fails, tmp_path: Path) -> None:
    assert "say what to evaluate on" in fails("eval", tmp_path)
    assert "name one model" in fails("eval", "--suite", "math")
    assert "belong to --suite" in fails("eval", tmp_path, "--data", tmp_path, "--chat")
    assert "no suite 'maths'" in fails("eval", tmp_path, "--suite", "maths")
    assert "asks about a file of yours: --data FILE, ToxiGen's annotated statements" in fails(
        "eval", tmp_path, "--suite", "toxic"
    )
