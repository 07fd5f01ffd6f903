"""The study on real preferences, in small: a tiny chat model and judgements in AlpacaEval's form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ayni.artifacts import read_json
from ayni.evals.baselines import baselines
from ayni.studies import catalogue, run
from ayni.studies.lab import Lab, load_scale
from ayni.studies.real import margin_real
from ayni.text.sources import read_preferences

from .in_small import check_result


def judgements(path: Path, prompts: int) -> Path:
    """Four pairs a prompt, of all strengths; the judge likes the longer answer."""
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        for prompt in range(prompts):
            for k, second in enumerate((0.97, 0.85, 0.7, 0.55)):
                row = {
                    "prompt": f"Where does person {prompt} live?",
                    "output_1": f"In town {k}.",
                    "output_2": f"Person {prompt} lives in town {k}, near the river.",
                    "preference_2": second,
                }
                stream.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    work = tmp_path_factory.mktemp("real-study")
    lab = Lab(work / "smoke" / "seed-0", 0, "smoke", load_scale("smoke"))
    data = lab.data()
    given = {"model": lab.sft(data, lab.base(data)), "preferences": judgements(work / "judged.jsonl.gz", 16)}
    run.run(["margin-real"], work, work / "out", seeds=1, scale="smoke", jobs=1, given=given)
    return work, given


def test_it_gives_a_result_with_length_and_words_beside(made: tuple[Path, dict[str, Path]]) -> None:
    work, _ = made
    assert catalogue.study("margin-real").group == "real"
    check_result(work, "margin-real", "real")
    table = read_json(work / "out" / "margin-real" / run.RESULT)["table"]["rows"]
    longer = {row[0]: row[1:] for row in table}["the longer answer"]
    assert all(cell.startswith("100.0") for cell in longer[:-1])  # as the judge was made


def test_no_prompt_is_both_trained_on_and_tested(made: tuple[Path, dict[str, Path]]) -> None:
    work, _ = made
    [place] = (path for path in work.glob("smoke-*"))
    [gathered] = (place / "seed-0").glob("preferences-*")
    parts = {name: read_preferences(gathered / f"{name}.jsonl") for name in ("train", "held_out")}
    assert [len(rows) for rows in parts.values()] == list(margin_real.SMALL)
    prompts = [{margin_real.prompt_of(row) for row in rows} for rows in parts.values()]
    assert not prompts[0] & prompts[1]
    assert len(list((place / "seed-0").glob("reward-helpfulness-*/manifest.json"))) == len(margin_real.STUDY.arms)
    right = baselines([], [margin_real.answers(row) for row in parts["held_out"]])["longer"]
    assert right == [1.0] * len(right)


def test_what_is_missing_is_said(tmp_path: Path, fails) -> None:  # type: ignore[no-untyped-def]
    assert "--model and --preferences" in fails("study", "margin-real", "--smoke", "--out", str(tmp_path / "out"))
    few = judgements(tmp_path / "few.jsonl.gz", 3)
    lab = Lab(tmp_path / "smoke" / "seed-0", 0, "smoke", load_scale("smoke"))
    model = lab.tokenizer(lab.data())
    with pytest.raises(ValueError, match=r"few\.jsonl\.gz: \d+ pairs of half of the prompts .* 24 are needed"):
        margin_real.drawn(few, model, tmp_path / "drawn", small=True, seed=0)
