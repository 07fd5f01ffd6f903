"""Five versions in the paper's arrangement through the real command line, whole and killed at the stages of a version."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, ayni
from tests.test_run import Reached, begun, done, hashes, kill_when, training

SMOKE_V5 = ROOT / "recipes" / "smoke-v5.yaml"
KILLS: list[tuple[str, Reached]] = [
    ("at a temperature sweep", begun("v1_temperature")),
    ("between sweep and sampling", done("v2_temperature")),
    ("inside fine-tuning with carried samples", training("v4_rejection")),
    ("at the sweep after PPO", begun("v5_temperature_after_ppo")),
    ("inside the sampling after PPO", training("v5_after_ppo")),
    ("at the comparison of versions", begun("eval/versus")),
]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("five") / "run"
    whole = ayni("run", SMOKE_V5, "--out", directory)
    assert whole.returncode == 0, whole.stderr
    return directory


@pytest.fixture(scope="module")
def results(five: Path) -> dict[str, Any]:
    return json.loads((five / "results.json").read_text())


def inputs(artifact: Path) -> dict[str, str]:
    """Names and paths of what a stage was built from."""
    recorded = json.loads((artifact / "manifest.json").read_text())["inputs"]
    return {name: Path(entry["path"]).name for name, entry in recorded.items()}


def test_trap_16_killed_at_any_stage_of_a_version_equals_not_killed(five: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    for _, reached in KILLS:
        kill_when(reached, killed, SMOKE_V5)
    resumed = ayni("run", SMOKE_V5, "--out", killed)
    assert resumed.returncode == 0, resumed.stderr
    assert hashes(killed) == hashes(five)
    for name in ("results.json", "samples.json"):
        assert (killed / name).read_bytes() == (five / name).read_bytes()
    assert not list(killed.rglob(".*.partial")), "nothing half-written is left"


def test_results_tell_each_version_from_its_data_to_its_figures(five: Path, results: dict[str, Any]) -> None:
    versions = results["versions"]
    assert [version["name"] for version in versions] == ["v1", "v2", "v3", "v4", "v5"]
    assert [version["previous"] for version in versions] == ["sft", "v1", "v2", "v3", "v4"]
    assert [version["checkpoints"] for version in versions] == [["v1"], ["v2"], ["v3"], ["v4"], ["v5_rejection", "v5_ppo", "v5"]]  # fmt: skip
    rows = {row["name"]: row for row in results["checkpoints"]}
    for version in versions:
        assert version["metrics"] == rows[version["name"]]["metrics"]
        assert set(version["checkpoints"]) <= set(rows)
        assert version["preferences"]["summary"]["pairs"] > 0
        for part in (
            version["preferences"],
            *version["reward_models"].values(),
            version["temperature"],
            version["rejection"],
        ):
            assert (five / part["path"] / "manifest.json").is_file()
        assert set(version["reward_models"]) == {"helpfulness", "safety"}
        assert version["temperature"]["chosen"] in (0.7, 1.2)
        assert version["rejection"]["summary"]["temperature"] == version["temperature"]["chosen"]
        assert [point["k"] for point in version["rejection"]["rewards"]] == [1, 2, 3]
    assert all(version["ppo"] is None and version["after_ppo"] is None for version in versions[:4])
    last = versions[4]
    assert (five / last["ppo"]["history"]).is_file()
    assert last["after_ppo"]["rejection"]["summary"]["temperature"] == last["after_ppo"]["temperature"]["chosen"]
    assert results["latest"] == last["after_ppo"]["path"] == rows["v5"]["path"] == "v5_after_ppo"


def test_wins_against_sft_and_the_version_before_by_two_judges(results: dict[str, Any]) -> None:
    rows = {row["name"]: row["metrics"] for row in results["checkpoints"]}
    opponents = {"sft": ("reward_win_vs_sft_helpful", "reward_win_vs_sft_safety", "harmless_win_vs_sft")}
    opponents["previous"] = ("helpful_win_vs_previous", *(name.replace("sft", "previous") for name in opponents["sft"]))
    for name, metrics in rows.items():
        for figure in opponents["sft"]:
            assert metrics[figure]["value"] is not None, (name, figure)
        of_a_version = name.startswith("v")
        for figure in opponents["previous"]:
            assert (metrics[figure]["value"] is not None) == of_a_version, (name, figure)
    for figure in opponents["sft"]:
        assert rows["sft"][figure]["value"] == 0.5, "against itself everything is a tie"
        assert rows["v1"][figure] == rows["v1"][figure.replace("sft", "previous")], "the version before V1 is SFT"


def test_prompts_get_harder_and_longer_and_the_newest_models_answer(five: Path, results: dict[str, Any]) -> None:
    summaries = [version["preferences"]["summary"] for version in results["versions"]]
    assert all(a["difficulty"] < b["difficulty"] for a, b in pairwise(summaries))
    turns = [sum(int(n) * count for n, count in summary["turns"].items()) for summary in summaries]
    assert turns[-1] > turns[0]
    answering = [set(summary["variants"]) for summary in summaries]
    assert answering == [{"sft", "sft_early"}, {"v1", "sft"}, {"v2", "v1", "sft"}, {"v3", "v2", "v1"}, {"v4", "v3", "v2"}]  # fmt: skip
    for number in range(1, 6):
        reward = inputs(five / f"v{number}_reward_helpfulness")
        assert [name for name in reward if name.startswith("preferences")] == [f"preferences {i}" for i in range(1, number + 1)]  # fmt: skip


def test_samples_of_all_earlier_versions_join_from_v4_on_each_once(five: Path, results: dict[str, Any]) -> None:
    counts = [version["rejection"]["summary"] for version in results["versions"]]
    targets = [count["targets"] for count in counts]
    assert [count["carried"] for count in counts] == [0, 0, 0, sum(targets[:3]), sum(targets[:4])]
    after = results["versions"][4]["after_ppo"]["rejection"]["summary"]
    assert after["carried"] == sum(targets)
    assert after["prompts"] == 20
    assert {inputs(five / f"v{number}_rejection")["start"] for number in range(1, 6)} == {"sft"}


def test_after_ppo_the_policy_of_ppo_samples_and_is_tuned(five: Path) -> None:
    built_from = inputs(five / "v5_after_ppo")
    assert built_from["latest"] == built_from["start"] == "v5_ppo"
    assert inputs(five / "v5_temperature_after_ppo")["sampler"] == "v5_ppo"
    assert inputs(five / "v5_ppo")["model"] == "v5_rejection"
    assert inputs(five / "v5_rejection")["latest"] == "v4_rejection"


def test_samples_bear_the_last_reward_models_scores(five: Path) -> None:
    for row in json.loads((five / "samples.json").read_text())["rows"]:
        assert set(row["rewards"]) == set(row["answers"])
        assert all(isinstance(score, float) for score in row["rewards"].values())
