"""Rejection sampling: which answer becomes the target, and from which model the next version starts (TRAPS 14)."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ayni.config import RejectionSettings
from ayni.engine.answers import Answer
from ayni.scoring.reward import Scorers
from ayni.stages import rejection


def answer(text: str, ended: bool = True) -> Answer:
    return Answer(prompt_ids=[1, 4], ids=[10, 2] if ended else [10], text=text, ended=ended, logprobs=[0.0])


def test_the_best_ended_answer_is_the_target() -> None:
    rows = [{"id": str(i), "messages": [{"role": "user", "content": "?"}]} for i in range(3)]
    answers = [[answer("a"), answer("b")], [answer("c"), answer("cut", ended=False)], [answer("x", ended=False)] * 2]
    best = rejection.pick(rows, answers, torch.tensor([[0.1, 0.9], [0.2, 5.0], [1.0, 1.0]]))
    assert [(row["id"], row["messages"][-1]["content"], row["reward"]) for row in best] == [
        ("0", "b", 0.9),
        ("1", "c", 0.2),
    ]


def test_figure_7_maximum_grows_with_k_and_median_is_the_median() -> None:
    reward_NK = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 4.0, 8.0]])
    assert rejection.by_k(reward_NK) == [
        {"k": 1, "max": 0.5, "median": 0.5},
        {"k": 2, "max": 1.5, "median": 0.5},
        {"k": 4, "max": 5.5, "median": 0.5},
    ]


def test_trap_14_start_model_latest_model_and_carried_samples(smoke_run: Path, tmp_path: Path) -> None:
    """V4 samples from the latest model, starts from SFT by default, and takes the top samples of earlier versions along."""
    settings = RejectionSettings(k=2, prompts=4, row_len=128, max_new_tokens=16, epochs=1, batch_rows=2)
    scorers = Scorers(smoke_run / "v2_reward_helpfulness", smoke_run / "v2_reward_safety")
    latest, sft, earlier = (
        smoke_run / "v2_ppo",
        smoke_run / "sft",
        [smoke_run / "v1_rejection", smoke_run / "v2_rejection"],
    )
    inputs, counts = {}, {}
    for version in (3, 4):
        out = tmp_path / f"v{version}"
        made = rejection.run(settings, smoke_run / "data", latest, sft, scorers, earlier, out, version=version, seed=1)
        inputs[version] = made.manifest["inputs"]
        counts[version] = sum(1 for _ in (out / rejection.SAMPLES).open())
    hashes = {
        name: json.loads((path / "manifest.json").read_text())["hash"]
        for name, path in (("sft", sft), ("latest", latest))
    }
    assert inputs[4]["start"]["hash"] == hashes["sft"]
    assert inputs[4]["latest"]["hash"] == hashes["latest"]
    assert not any(name.startswith("earlier") for name in inputs[3])
    carried = sum(sum(1 for _ in (path / rejection.SAMPLES).open()) for path in earlier)
    assert 0 < counts[3] <= 4
    assert carried < counts[4] <= carried + 4
    again = settings.model_copy(update={"start": "latest"})
    made = rejection.run(again, smoke_run / "data", latest, sft, scorers, [], tmp_path / "again", version=2, seed=1)
    assert made.manifest["inputs"]["start"]["hash"] == hashes["latest"]
