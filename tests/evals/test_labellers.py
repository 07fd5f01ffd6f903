"""TRAPS 24 from manifests: who labelled what a model learned from, and what a judge shares with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ayni.artifacts import build, read_manifest
from ayni.evals.labellers import lineage, shared_by_name, shared_by_plugin, shared_by_reward
from ayni.text.sources import write_jsonl


def made(out: Path, stage: str, settings: dict[str, object] | None = None, **inputs: Path | None) -> Path:
    """An artifact that names these inputs ("_" stands for a space in a role)."""
    named = {role.replace("_", " "): path for role, path in inputs.items()}
    return build(out, stage, settings or {}, named, 0, lambda work: write_jsonl(work / "x.jsonl", [{"of": out.name}])).path  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, stage, settings=None, **inputs: made(tmp_path / name, stage, settings, **inputs)


def test_the_smoke_runs_own_lineage(smoke_run: Path) -> None:
    """Every reward model of the run stands in the last model's lineage, and in the first none."""
    last = lineage(smoke_run / "v2_ppo")
    rewards = {read_manifest(smoke_run / f"{v}_reward_{kind}")["hash"] for v in ("v1", "v2") for kind in ("helpfulness", "safety")}  # fmt: skip
    assert set(last.rewards) == rewards
    assert last.plugins == {"world"}
    assert last.names == set()
    assert last.unknown == []
    assert lineage(smoke_run / "sft").rewards == {}
    assert lineage(smoke_run / "sft").plugins == set()
    assert shared_by_plugin("world", last) == [], "examiner and annotators share the world, no scorer"
    assert shared_by_plugin("published", last) == []
    both = shared_by_reward(smoke_run / "v2_reward_safety", last)
    assert any("tuned towards" in reason for reason in both)
    assert any("learned from the annotators 'world'" in reason for reason in both)
    assert shared_by_reward(smoke_run / "v2_reward_safety", lineage(smoke_run / "sft")) == []


def test_labels_in_files_are_names(run: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "chosen": "So.", "rejected": "No.", "annotator": name} for name in ("Ann", "Ben", "unknown")]  # fmt: skip
    write_jsonl(tmp_path / "mine.jsonl", rows)
    judged = {"prompt": "Why?", "output_1": "So.", "output_2": "No.", "preference_2": 0.1, "judge": "large-model"}
    write_jsonl(tmp_path / "open.jsonl", [judged])
    base = run("base", "pretrain")
    reward = run("rm", "reward-helpfulness", model=base, preferences_1=tmp_path / "mine.jsonl", open_preferences_1=tmp_path / "open.jsonl")  # fmt: skip
    tuned = run("dpo", "dpo", model=base, preferences_1=tmp_path / "mine.jsonl")
    assert lineage(tuned).names == {"Ann", "Ben"}
    assert lineage(reward).names == {"Ann", "Ben", "large-model"}
    assert lineage(run("ppo", "ppo", model=base, helpfulness=reward)).names == {"Ann", "Ben", "large-model"}
    assert shared_by_name(["Ben", "Cem"], lineage(tuned)) == ["Ben labelled preferences that a compared model learned from"]  # fmt: skip
    assert shared_by_name(["large-model"], lineage(tuned)) == []
    assert [r.split()[3:5] for r in shared_by_reward(reward, lineage(tuned))] == [["Ann's", "preferences,"], ["Ben's", "preferences,"]]  # fmt: skip


def test_preferences_inside_an_artifact_are_that_artifacts(run: Callable[..., Path], tmp_path: Path) -> None:
    """A file in a stage's directory leads to the stage, and its rows' names count besides."""
    write_jsonl(tmp_path / "p" / "train.jsonl", [])
    folder = build(tmp_path / "prefs", "preferences", {"annotators": "published"}, {}, 0,
                   lambda work: write_jsonl(work / "train.jsonl", [{"chosen": "a", "annotator": "scored_plain"}])).path  # fmt: skip
    found = lineage(run("dpo", "dpo", preferences_1=folder / "train.jsonl"))
    assert found.plugins == {"published"}
    assert found.names == {"scored_plain"}
    assert lineage(run("dpo2", "dpo", preferences_1=folder)).plugins == {"published"}


def test_a_guard_labels_nothing_and_red_teams_eyes_do(run: Callable[..., Path]) -> None:
    guard, eyes = run("guard", "reward-guard"), run("round", "redteam", {"eyes": None, "judge": "published"})
    found = lineage(run("ppo", "ppo", guard=guard, prompts=eyes))
    assert found.rewards == {}
    assert found.plugins == {"published"}


def test_what_cannot_be_followed_is_told(run: Callable[..., Path], tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    assert lineage(foreign).unknown == ["foreign was not made by Ayni: what it learned from is not on record"]
    assert "foreign was not made by Ayni" in lineage(run("tuned", "sft", model=foreign)).unknown[0]
    assert "was imported" in lineage(run("smol", "import")).unknown[0]
    gone = run("rm", "reward-safety")
    model = run("ppo", "ppo", safety=gone)
    shutil.rmtree(gone)
    found = lineage(model)
    assert found.unknown == ["ppo: its input ../rm is gone, or another by now"]
    assert list(found.rewards.values()) == ["rm"], "what it was tuned towards is known by its hash all the same"


def test_judges_that_use_an_annotators_code_or_scorer(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from ayni.evals import labellers

    found = lineage(run("prefs", "preferences", {"annotators": "published"}))
    where = {"itself": "ayni.feedback.scored", "cousin": "ayni.evals.written.bold", "apart": "ayni.evals.judges"}
    own = labellers._module_of
    monkeypatch.setattr(labellers, "_module_of", lambda group, name: where[name] if group == "judges" else own(group, name))  # fmt: skip
    [first, second] = shared_by_plugin("itself", found)
    assert "uses the code of the annotators 'published' (ayni.feedback.scored)" in first
    assert "share ayni.scoring." in second
    [scorer] = shared_by_plugin("cousin", found)
    assert "ayni.scoring.sentiment" in scorer
    assert shared_by_plugin("apart", found) == []
    unknown = lineage(run("theirs", "preferences", {"annotators": "nobody_has_this"}))
    assert shared_by_plugin("apart", unknown) == []
    assert "'nobody_has_this' is not installed here" in unknown.unknown[0]


def test_reading_code_runs_none_of_it() -> None:
    """The modules behind plug-ins are found by their place in the package, not by importing them."""
    import subprocess
    import sys

    code = "import sys; from ayni.evals.labellers import _modules; print(len(_modules('ayni.evals.judges')), 'ayni.evals.judges' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, imported = done.stdout.split()
    assert int(count) > 4
    assert imported == "False"
