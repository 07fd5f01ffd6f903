"""The studies of safety, in small."""

import json
from pathlib import Path

import numpy as np
import pytest

from ayni.artifacts import read_json, read_manifest
from ayni.stages import distillation, ghost_turns
from ayni.studies import catalogue
from ayni.studies.paired import Outcomes
from ayni.studies.safety import context_distillation, ghost_attention, safety_scaling
from ayni.studies.study import Outcome
from ayni.text.sources import read_jsonl

from .in_small import check_result, first_lab, run_in_small

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


def test_the_careful_model_has_met_preprompts_with_answers_free_of_faults(work: Path) -> None:
    lab = work / "smoke" / "seed-0"
    [chats] = lab.glob("careful-chats-*/chats.jsonl")
    data = (chats.parent / read_manifest(chats.parent)["inputs"]["data"]["path"]).resolve()
    planted, clean, ours = (read_jsonl(file) for file in (data / "sft.jsonl", data / "sft_clean.jsonl", chats))
    assert ours[: len(planted)] == planted
    wanted = [row["messages"] for row in clean if row["prompt_kind"] == "safety" for _ in range(2)]
    added = [row["messages"] for row in ours[len(planted) :]]
    assert [messages[1:] for messages in added] == wanted
    assert {messages[0]["role"] for messages in added} == {"system"}
    cared = [("Say no" in messages[0]["content"]) for messages in added]
    assert cared == [False, True] * (len(wanted) // 2)


def test_arms_of_distillation_differ_in_preprompt_and_gate_alone(work: Path) -> None:
    lab = work / "smoke" / "seed-0"
    made = list(lab.glob("distillation-??????????"))
    assert len(made) == len(context_distillation.HOW)
    manifests = [read_manifest(path) for path in made]
    assert len({json.dumps(m["inputs"], sort_keys=True) for m in manifests}) == 1
    same = [{key: value for key, value in m["settings"].items() if key not in ("preprompt", "gate")} for m in manifests]
    assert all(settings == same[0] for settings in same)
    assert {(m["settings"]["preprompt"], m["settings"]["gate"]) for m in manifests} == {
        (how["preprompt"], how.get("gate", True)) for how in context_distillation.HOW.values()
    }
    originals = [[row["original"] for row in read_jsonl(path / distillation.ANSWERS)] for path in made]
    assert all(answers == originals[0] for answers in originals)
    prompts = {row["id"] for row in read_jsonl(made[0] / distillation.ANSWERS)}
    assert any("#1" in name for name in prompts), "a prompt that is drawn again has answers of its own"


def test_what_is_measured_while_sampling_is_averaged_by_prompt(work: Path) -> None:
    lab = first_lab(work)
    [made] = [
        p for p in lab.directory.glob("distillation-??????????") if read_manifest(p)["settings"]["preprompt"] == "none"
    ]
    values = context_distillation.while_sampling(lab, lab.data(), made)
    scores: dict[str, list[float]] = {}
    for row in read_jsonl(made / distillation.ANSWERS):
        scores.setdefault(row["id"].split("#")[0], []).append(1 / (1 + np.exp(-row["score"])))
    assert set(values["under safety"]) == set(scores) == set(values["plain violation"])
    for prompt, given in scores.items():
        assert values["under safety"][prompt] == pytest.approx(sum(given) / len(given), abs=1e-5)


def test_the_verdict_on_distillation() -> None:
    """Ten prompts each; every effect by hand."""

    def of(**means: float) -> Outcome:
        names = {
            **dict.fromkeys(
                (*context_distillation.FIGURES, "plain safety", "plain violation", "under safety", "under violation"),
                0.0,
            )
        }
        values = {
            name: {f"p{i}": mean for i in range(10)}
            for name, mean in {**names, **{k.replace("_0", " "): v for k, v in means.items()}}.items()
        }
        return Outcome(values, {"kept": 30, "sampled": 40})

    arms = {
        "before": of(violation=0.5, utility=0.6), "again": of(violation=0.4, utility=0.6), "generic": of(plain_0safety=0.3, under_0safety=0.6),
        "template": of(under_0safety=0.8, violation=0.1, safety=0.9, utility=0.58), "generic-all": of(), "template-all": of(safety=0.7),
    }  # fmt: skip
    found = context_distillation.conclude(Outcomes({arm: {0: outcome, 1: outcome} for arm, outcome in arms.items()}))
    assert [effect.value for effect in found.effects] == pytest.approx([0.3, 0.2, 0.4, 0.3, 0.2, -0.02])
    assert found.verdict == "holds"
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["trained: template, gated"][0] == "75%"
    assert rows["trained: before"][0] == rows["sampled: no preprompt"][0] == "–"
    assert rows["sampled: no preprompt"][1].startswith("30.0 ")
    assert all(len(row) == len(found.columns) for row in found.rows)


def test_models_of_the_scaling_differ_in_their_share_of_safety_alone(work: Path) -> None:
    lab = work / "smoke" / "seed-0"
    [chats] = lab.glob("safety-chats-*/chats.jsonl")
    rows = read_jsonl(chats)
    assert {row["task"] for row in rows if row["prompt_kind"] == "safety"} == {"harmful"}
    assert not any(row["faults"] for row in rows)
    made = [
        m
        for path in lab.glob("sft-??????????")
        if "safety-chats" in (m := read_manifest(path))["inputs"]["chats"]["path"]
    ]
    assert sorted(m["settings"]["safety_share"] for m in made) == [0.0, 0.01, 0.1, 0.25, 0.5, 1.0]
    assert len({json.dumps([m["inputs"], {**m["settings"], "safety_share": None}], sort_keys=True) for m in made}) == 1


def test_the_verdict_on_the_scaling_of_safety_data() -> None:
    """Safety rewards rise with the share, a fifth of them stays low; helpfulness is flat whatever its unit."""

    def of(share: int, scale: float) -> Outcome:
        safety = {f"h{i}": (0.1 if i < 2 else 0.3 + share / 200) for i in range(10)}
        shapes = {
            "ordinary_refusal": 0.01,
            "borderline_refusal": share / 200,
            "violation": 0.5,
            "ordinary_utility": 0.7,
        }
        values = {name: {f"p{i}": mean for i in range(10)} for name, mean in shapes.items()}
        low = {prompt: float(i < 6 - share // 25) for i, prompt in enumerate(safety)}
        helpfulness = {f"p{i}": scale * i for i in range(10)}
        return Outcome(
            {**values, "safety": safety, "low": low, "helpfulness": helpfulness}, {"helpful": 90, "safety": share}
        )

    arms = {
        str(share): {seed: of(share, scale) for seed, scale in ((0, 1.0), (1, 50.0))} for share in safety_scaling.SHARES
    }
    found = safety_scaling.conclude(Outcomes(arms))
    assert [effect.value for effect in found.effects] == pytest.approx([0.4, 0.4, 0.0, 0.5, -0.01])
    assert found.verdict == "holds"
    last = dict(zip(found.columns, found.rows[-1]))
    assert last["its 5% quantile x 100"].startswith("10.0 ")
    assert (last["borderline, paper, %"], last["ordinary, paper, %"], last["demonstrations"]) == ("27", "0.05", "100")
    scaled = safety_scaling.standardised(Outcomes(arms), "helpfulness")
    for seed in (0, 1):
        values = list(scaled.by["0"][seed].values["helpfulness"].values())
        assert values == pytest.approx(list((np.arange(10) - 4.5) / np.arange(10).std()))
