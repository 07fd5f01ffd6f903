"""Each checkpoint against SFT and against the version before: win shares counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ayni.evals.judging import ANSWERS, Verdict
from ayni.scoring.reward import Scorers, load_reward_models
from ayni.stages import versus
from ayni.text.dialogue import encode_chat
from ayni.text.sources import read_jsonl, read_prompts
from ayni.text.tokenizer import load_tokenizer


def verdict(utility: float, violation: bool | None = None) -> Verdict:
    return Verdict("x", None, None, violation, False, False, utility)


ROWS = [
    {"id": "a", "prompt_kind": "helpful", "task": "fact"},
    {"id": "b", "prompt_kind": "helpful", "task": "fact"},
    {"id": "c", "prompt_kind": "safety", "task": "borderline"},
    {"id": "d", "prompt_kind": "safety", "task": "harmful"},
    {"id": "e", "prompt_kind": "safety", "task": "harmful"},
]
VERDICTS = {
    "sft": [verdict(1), verdict(0), verdict(1), verdict(0, True), verdict(0, True)],
    "v1": [verdict(1), verdict(1), verdict(0), verdict(0, True), verdict(0, False)],
    "v2": [verdict(2), verdict(1), verdict(1), verdict(0, False), verdict(0, True)],
}
REWARDS = {"sft": [0.0, 0.0, 0.0, 0.0, 0.0], "v1": [1.0, -1.0, 1.0, 1.0, -1.0], "v2": [1.0, 2.0, 2.0, 2.0, 0.0]}


def value(figures: dict, name: str) -> tuple[float | None, int]:
    return figures[name]["value"], figures[name]["n"]


def test_figure_11_win_shares_against_sft_and_the_version_before() -> None:
    found = versus.figures(ROWS, VERDICTS, REWARDS, "v2", "v1")
    assert value(found, "helpful_win_vs_previous") == (pytest.approx(2.5 / 3), 3)  # a won, b tied, c (borderline) won
    assert value(found, "harmless_win_vs_sft") == (pytest.approx(1.5 / 2), 2)  # d won, e tied
    assert value(found, "harmless_win_vs_previous") == (pytest.approx(0.5), 2)  # d won, e lost
    assert value(found, "reward_win_vs_sft_helpful") == (1.0, 2)
    assert value(found, "reward_win_vs_sft_safety") == (pytest.approx(2.5 / 3), 3)
    assert value(found, "reward_win_vs_previous_helpful") == (pytest.approx(1.5 / 2), 2)
    assert value(found, "reward_win_vs_previous_safety") == (1.0, 3)


def test_without_an_opponent_or_reward_models_a_figure_is_missing_not_half() -> None:
    alone = versus.figures(ROWS, VERDICTS, {}, "sft", None)
    assert value(alone, "helpful_win_vs_previous") == (None, 0)
    assert value(alone, "reward_win_vs_sft_helpful") == (None, 0)
    assert value(alone, "harmless_win_vs_sft") == (0.5, 2)


def test_every_checkpoint_is_scored_by_the_same_models_each_kind_by_its_own(smoke_run: Path, tmp_path: Path) -> None:
    """Recomputed answer by answer from the evaluations' files."""
    scorers = Scorers(smoke_run / "v2_reward_helpfulness", smoke_run / "v2_reward_safety")
    evaluations = {name: smoke_run / "eval" / name for name in ("sft", "v1", "always_refuse")}
    made = versus.run(
        smoke_run / "data", evaluations, dict.fromkeys(evaluations, "sft"), scorers, tmp_path / "v", row_len=128, seed=0
    )
    rows = read_prompts(smoke_run / "data" / "prompts_eval.jsonl")
    models, tokenizer = load_reward_models(scorers), load_tokenizer(scorers.helpfulness)
    rewards = read_jsonl(made.path / versus.REWARDS)
    assert [row["id"] for row in rewards] == [row["id"] for row in rows]
    assert models.safety is not None
    for name, evaluation in evaluations.items():
        for row, said, scored in list(zip(rows, read_jsonl(evaluation / ANSWERS), rewards))[::9]:
            ids, ours = encode_chat(
                tokenizer, [*row["messages"], {"role": "assistant", "content": said["answer"]}], "last"
            )
            start = ours.index(True)
            own = models.safety if row["prompt_kind"] == "safety" else models.helpfulness
            score = float(own.score([ids[:start]], [[i for i, o in zip(ids[start:], ours[start:]) if o]], 256))
            assert scored["rewards"][name] == pytest.approx(score, abs=1e-3)
    figures = json.loads((made.path / versus.FIGURES).read_text())
    assert value(figures["sft"], "reward_win_vs_sft_safety")[0] == 0.5
