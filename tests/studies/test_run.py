"""`ayni study`: jobs are kept and found again, results are complete, the page and the picture are drawn from them alone."""

import json

import pytest

from ayni.report import study as pages
from ayni.studies import catalogue, run
from ayni.studies.lab import Lab, changed, load_scale
from ayni.studies.study import Conclusion, Effect, Outcome, Panel, Series, Study

KEYS = {"claim", "paper", "ours", "low", "high", "seeds", "n", "verdict"}
CALLS = []


def measure(lab, arm):
    CALLS.append((arm, lab.seed))
    return Outcome({"hit": {"p": float(arm == "b") + 0.1 * lab.seed}}, {"arm": arm})


def conclude(outcomes):
    a, b = (sum(outcomes.means("hit", arm)) for arm in ("a", "b"))
    effect = Effect("b minus a", b - a, b - a - 0.1, b - a + 0.1, 2)
    bars = Panel("ours", "arm", "hits", [Series("hits", ["a", "b"], [a, b], [a, b], [a, b])], "bars")
    lines = Panel("curve", "K", "reward", [Series("one", [1, 2], [0.1, 0.2]), Series("paper", [1, 2], [1, 2], paper=True)], log_x=True)  # fmt: skip
    return Conclusion([effect], ["arm", "hits"], [["a|b", a], ["b", b]], [bars, lines], ["A remark."])


@pytest.fixture
def toy(monkeypatch):
    study = Study("toy", "reward", "B is better.", "Table 0.", ("a", "b"), measure, conclude, "A toy.")
    monkeypatch.setattr(catalogue, "study", lambda name: study)
    monkeypatch.setattr(run, "carry_out", lambda todo, workers: [run.carry_out_one(job) for job in todo])
    CALLS.clear()
    return study


@pytest.mark.usefixtures("toy")
def test_a_study_is_resumed_and_its_result_is_complete(tmp_path):
    [path] = run.run(["toy"], tmp_path / "work", tmp_path / "out", seeds=2, scale="smoke")
    result = json.loads(path.read_text())
    assert set(result) >= KEYS
    assert (result["verdict"], result["seeds"], result["ours"]) == ("holds", 2, pytest.approx(2.0))
    assert len(CALLS) == 4
    (tmp_path / "work/smoke/outcomes/toy/b-seed-1.json").unlink()
    [again] = run.run(["toy"], tmp_path / "work", tmp_path / "out", seeds=2, scale="smoke")
    assert CALLS[4:] == [("b", 1)]
    assert {**json.loads(again.read_text()), "seconds_of_work": 0} == {**result, "seconds_of_work": 0}


@pytest.mark.usefixtures("toy")
def test_page_picture_and_index_come_from_the_result_alone(tmp_path):
    results = run.run(["toy"], tmp_path / "work", tmp_path / "out", seeds=1, scale="smoke")
    [figure] = pages.write(results)
    picture = figure.read_bytes()
    assert picture.startswith(b"<?xml")
    page = figure.with_name("README.md").read_text()
    assert "smoke run: its figures mean nothing" in page
    assert "a\\|b" in page  # a cell cannot break the table
    assert "A remark." in page
    assert "[toy](toy/README.md)" in (tmp_path / "out/README.md").read_text()
    pages.write(results)
    assert figure.read_bytes() == picture


def test_a_failed_arm_is_one_clear_error_that_names_its_log(tmp_path, monkeypatch):
    job = run.Job("toy", "a", 0, tmp_path, "smoke")
    monkeypatch.setattr(run, "carry_out_one", nothing_works)
    with pytest.raises(ValueError, match=r"toy, arm a, seed 0 failed: .*toy-a-seed-0.log") as caught:
        run.carry_out([job], 1)
    assert "goes on with the arms that are left" in str(caught.value)


def nothing_works(job):
    raise ValueError("no such prompt")


def test_the_lab_makes_an_artifact_once_and_names_it_by_what_decides_it(tmp_path):
    lab = Lab(tmp_path, 0, "smoke", load_scale("smoke"))
    data = lab.data()
    assert lab.data() == data
    assert lab.data(people=14) != data
    assert lab.tokenizer(data) == lab.tokenizer(data)
    assert Lab(tmp_path, 1, "smoke", lab.recipe).data() != data


def test_settings_are_changed_deeply_and_checked():
    sft = load_scale("smoke").sft
    new = changed(sft, epochs=3, optimizer={"lr": 1e-4})
    assert (new.epochs, new.optimizer.lr, new.optimizer.weight_decay) == (3, 1e-4, sft.optimizer.weight_decay)
    with pytest.raises(ValueError, match="epoch"):
        changed(sft, epoch=3)


def test_every_study_of_the_catalogue_can_be_told(fails):
    for name in catalogue.names():
        study = catalogue.study(name)
        assert study.arms
        assert study.claim.endswith(".")
        assert study.paper
    assert "known: " in fails("study", "no-such-study")
    assert "docs/studies" in fails("study", "margin", "--smoke")
