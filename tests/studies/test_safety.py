"""The studies of safety, in small."""

from pathlib import Path

import pytest

from ayni.artifacts import read_json, read_manifest
from ayni.stages import ghost_turns
from ayni.studies import catalogue
from ayni.studies.paired import Outcomes
from ayni.studies.safety import ghost_attention
from ayni.studies.study import Outcome
from ayni.text.sources import read_jsonl

from .in_small import check_result, run_in_small

NAMES = ("ghost-attention", "context-distillation", "safety-scaling")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_small(NAMES, tmp_path_factory.mktemp("studies"))


@pytest.mark.parametrize("name", NAMES)
def test_every_study_gives_a_result(work: Path, name: str) -> None:
    assert name in catalogue.BY_GROUP["safety"]
    check_result(work, name, "safety")


def test_the_obedient_model_differs_in_its_demonstrations_alone(work: Path) -> None:
    """It starts from the shared base, and has the shared demonstrations and rules of one exchange behind them."""
    lab = work / "smoke" / "seed-0"
    assert len(list(lab.glob("base-*"))) == 1
    [ghost] = lab.glob("ghost-??????????")
    begin = read_manifest(ghost)["inputs"]["model"]["path"]
    chats = (ghost / begin / read_manifest(ghost / begin)["inputs"]["chats"]["path"]).resolve()
    shared = (ghost / read_manifest(ghost)["inputs"]["prompts"]["path"]).resolve()
    ours, theirs = read_jsonl(chats), read_jsonl(shared / "sft.jsonl")
    assert ours[: len(theirs)] == theirs
    added = ours[len(theirs) :]
    assert len(added) == 60
    assert {tuple(m["role"] for m in row["messages"]) for row in added} == {("system", "user", "assistant")}
    assert {row["task"] for row in added} == {"system"}
    assert not any(read_json(chats.parent / "about.json")["overlaps"].values())


def test_the_gap_is_paired_by_dialogue_and_needs_half_of_them() -> None:
    """Before keeps dialogues 0 and 1 of 20, after all but the last: 0.95 - 0.1."""
    values: dict[str, dict[str, float]] = {}
    for arm, kept in (
        (ghost_turns.BEFORE, range(2)),
        (ghost_turns.REPEATED, range(20)),
        (ghost_turns.AFTER, range(19)),
    ):
        for group in ghost_turns.GROUPS:
            for turn in (*range(1, 7),):
                values[ghost_attention.metric(arm, group, turn)] = {f"{group} {i}": float(i in kept) for i in range(20)}
        values |= {f"attention {arm} {turn}": {"all": 0.1 * turn} for turn in range(1, 7)}
    facts = {"turns": 6, "sampled": {"dialogues": 5, "sampled": 6, "mean_turns": 3.0}}
    found = ghost_attention.conclude(Outcomes({"ghost": {0: Outcome(values, facts), 1: Outcome(values, facts)}}))
    headline = found.effects[0]
    assert (headline.value, headline.above, headline.n) == (pytest.approx(0.85), 0.5, 40)
    assert found.verdict == "holds"
    rows = {row[0]: row[1:] for row in found.rows}
    assert [cell.split()[0] for cell in rows["before, trained"]] == ["10", "10", "10"]
    assert rows["before, Table 30"] == ["100", "10", "0"]
