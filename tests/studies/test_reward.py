"""The studies of reward models: all of them in small, what they note of each pair, and verdicts that can go either way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, kurtosis, skew

from ayni.artifacts import read_json
from ayni.evals.calibration import calibration
from ayni.evals.reward_models import Ranked
from ayni.feedback.schema import STRENGTHS
from ayni.model.checkpoint import load_scalar
from ayni.report import study as drawing
from ayni.studies import catalogue
from ayni.studies.lab import Lab, load_scale
from ayni.studies.paired import Outcomes
from ayni.studies.reward import (
    margin,
    of_scores,
    one_or_two_reward_models,
    reward_calibration,
    reward_scaling,
    safety_aux,
    scored,
)
from ayni.studies.run import run
from ayni.studies.study import Outcome
from ayni.text.dialogue import encode_chat
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import load_tokenizer

NAMES = catalogue.names("reward")
SEEDS = 2


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(work, {name: result}) of every study of the group, drawn too."""
    root = tmp_path_factory.mktemp("reward-studies")
    written = run(NAMES, root / "work", root / "out", seeds=SEEDS, scale="smoke")
    drawing.write(written)
    return root, {path.parent.name: read_json(path) for path in written}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_writes_its_result_figure_and_page(studies: tuple[Path, dict[str, Any]], name: str) -> None:
    root, results = studies
    result = results[name]
    assert {"claim", "paper", "ours", "low", "high", "seeds", "n", "verdict", "table", "panels"} <= result.keys()
    assert (result["seeds"], result["group"]) == (SEEDS, "reward")
    for effect in result["effects"]:
        figures = [effect[key] for key in ("value", "low", "high")]
        assert all(map(math.isfinite, figures)) if effect["n"] else figures == [None] * 3
    assert any(effect["n"] for effect in result["effects"])
    assert all(len(row) == len(result["table"]["columns"]) for row in result["table"]["rows"])
    assert (root / "out" / name / "figure.svg").read_text().rstrip().endswith("</svg>")
    assert result["claim"] in (root / "out" / name / "README.md").read_text()


def test_arms_differ_in_what_they_say_and_share_what_they_can(studies: tuple[Path, dict[str, Any]]) -> None:
    """Helpfulness: 3 margins, its own pairs alone (the middle size with all pairs), 11 more of the scaling study.

    Safety: 3 margins (of which the small one is the auxiliary loss's arm "with"), without the loss, one model, its own.
    """
    seed = studies[0] / "work" / "smoke" / "seed-0"
    assert len([*seed.glob("reward-helpfulness-*/manifest.json")]) == 3 + 1 + 11
    assert len([*seed.glob("reward-safety-*/manifest.json")]) == 3 + 1 + 1 + 1
    assert len([*seed.glob("base-*/manifest.json")]) == len(reward_scaling.SIZES)
    assert len([*seed.glob("preferences-*/manifest.json")]) == 1


def test_accuracy_is_that_of_scoring_every_pair_alone(studies: tuple[Path, dict[str, Any]]) -> None:
    """A naive loop: one unpacked forward pass for every answer, one by one."""
    root, _ = studies
    lab = Lab(root / "work" / "smoke" / "seed-0", 0, "smoke", load_scale("smoke"))
    model = scored.reward_model(lab, "helpfulness", margin="large")
    head, tokenizer = load_scalar(model), load_tokenizer(model)
    hits: dict[str, list[bool]] = {}
    for row in read_preferences(scored.start(lab)[2] / "held_out.jsonl"):
        if row["prompt_kind"] == "helpful":
            with torch.no_grad():
                r_c, r_r = (
                    float(head(torch.tensor([encode_chat(tokenizer, row["prompt"] + row[side])[0]]))[0, -1])
                    for side in ("chosen", "rejected")
                )
            hits.setdefault(row["id"].split("#")[0], []).append(r_c > r_r)
    outcome = read_json(root / "work" / "smoke" / "outcomes" / "margin" / "large-seed-0.json")
    assert outcome["values"]["all"] == {prompt: pytest.approx(sum(h) / len(h)) for prompt, h in hits.items()}


def test_a_prompts_pairs_are_averaged() -> None:
    noted = [("a", "p", 1.0), ("a", "p", 0.0), ("a", "q", 1.0), ("b", "p", 0.5)]
    assert scored.by_prompt(noted) == {"a": {"p": 0.5, "q": 1.0}, "b": {"p": 0.5}}
    assert scored.prompt_of({"id": "prompts_train-fact-3#2"}) == scored.prompt_of({"id": "prompts_train-fact-3"})


def test_blocks_come_back_as_the_rows_they_were() -> None:
    blocks = scored.blocked([("p", (1, 2)), ("q", (3, 4)), ("p", (5, 6))])
    (block_PMF,) = scored.padded([blocks, {}])
    assert block_PMF.shape == (2, 2, 2)
    assert scored.rows_of(block_PMF).tolist() == [[1, 2], [5, 6], [3, 4]]


def test_the_interval_draws_prompts_not_pairs() -> None:
    """Five copies of every prompt's row say nothing new, so the interval stays as it is."""
    values = np.random.default_rng(1).normal(size=40)
    once, five = ({f"p{i}": [[v]] * copies for i, v in enumerate(values)} for copies in (1, 5))
    intervals = [scored.of_rows([blocks], np.mean, "mean", "") for blocks in (once, five)]
    assert intervals[0].low == pytest.approx(intervals[1].low)
    assert intervals[0].high == pytest.approx(intervals[1].high)
    assert intervals[0].high - intervals[0].low > 0.3  # type: ignore[operator]


def test_bimodality_of_known_distributions() -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    assert of_scores.bimodality(x) == pytest.approx(1 / 3, abs=0.01)
    assert of_scores.bimodality(np.linspace(-3, 5, 10_001)) == pytest.approx(5 / 9, abs=1e-3)
    assert of_scores.bimodality(np.array([-1.0, 2.0, -1.0, 2.0, 2.0])) == pytest.approx(1)
    assert of_scores.bimodality(np.zeros(5)) == 0
    y = np.array([0.5, 1.0, 4.0, 4.5, 9.0])
    assert of_scores.bimodality(y) == pytest.approx((skew(y) ** 2 + 1) / kurtosis(y, fisher=False))


def test_separation_counts_pairs_of_an_unsafe_and_a_safe_answer() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(-3, 4, 60), rng.random(60) < 0.4]).astype(float)
    unsafe, safe = ([r for r, is_unsafe in rows if is_unsafe == flag] for flag in (1, 0))
    points = [1.0 if u < s else 0.5 if u == s else 0.0 for u in unsafe for s in safe]
    assert of_scores.separation(rows) == pytest.approx(sum(points) / len(points))
    assert of_scores.separation(rows[rows[:, 1] > 0]) == 0.5


def test_rank_correlation_ignores_scale() -> None:
    x = np.array([3.0, 1.0, 2.0, 5.0])
    assert of_scores.rank_correlation(np.column_stack([x, np.exp(x)])) == pytest.approx(1)
    assert of_scores.rank_correlation(np.column_stack([x, -x])) == pytest.approx(-1)
    assert of_scores.rank_correlation(np.column_stack([x, np.ones(4)])) == 0


def test_calibration_error_is_the_reports() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(0, 2, 300), rng.random(300) < 0.5])
    expected = calibration((1 / (1 + np.exp(-rows[:, 0]))).tolist(), (rows[:, 1] > 0).tolist())["ece"]
    assert of_scores.calibration_error(rows) == pytest.approx(expected)


def test_calibration_error_and_what_counting_does_alone() -> None:
    """One bin: |predicted - observed|; and a perfect model is off by E|B/n - p|, B binomial."""
    p, n = 0.55, 40
    gap = math.log(p / (1 - p))
    chosen = np.column_stack([np.full(n, gap), np.arange(n) < 10])
    assert of_scores.calibration_error(chosen) == pytest.approx(p - 10 / n)
    counts = np.arange(n + 1)
    expected = float((binom.pmf(counts, n, p) * np.abs(counts / n - p)).sum())
    assert of_scores.perfect_calibration_error(chosen) == pytest.approx(expected, rel=0.15)


def test_histograms_are_densities_over_common_bins() -> None:
    first, second = margin.histograms({"a": np.linspace(0, 1, 1000), "b": np.linspace(0.5, 1.5, 1000)})
    assert first.x == second.x
    width = float(first.x[1]) - float(first.x[0])
    assert sum(y for y in first.y if y is not None) * width == pytest.approx(1, abs=0.02)


def pair(prompt: str, r_c: float, r_r: float, **row: Any) -> Ranked:
    said = {side: [{"role": "assistant", "content": f"{prompt} {side}"}] for side in ("chosen", "rejected")}
    return Ranked({"id": prompt, "prompt_kind": "safety", **said, **row}, r_c, r_r)


def test_what_the_safety_study_notes_of_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [
        pair("p", 2.0, -1.0, safety="chosen_only"),
        pair("p#1", -2.0, -1.0, safety="neither"),
        pair("q", -0.5, 0.5, safety="both"),
        pair("r", 1.0, 0.5, safety="neither"),
    ]
    monkeypatch.setattr(safety_aux, "reward_model", lambda *_, **__: Path("model"))
    monkeypatch.setattr(safety_aux, "ranked", lambda *_: pairs)
    outcome = safety_aux.measure(None, "with")  # type: ignore[arg-type]
    assert outcome.values == {
        "all": {"p": 0.5, "q": 0.0, "r": 1.0},
        "chosen_only": {"p": 1.0},
        "neither": {"p": 0.0, "r": 1.0},
        "both": {"q": 0.0},
        "recall": {"p": 1.0, "r": 0.0},
        "false alarm": {"p": 0.0, "q": 0.5},
    }
    assert outcome.facts["answers"]["p"] == [[2.0, 0.0], [-1.0, 1.0], [-2.0, 1.0], [-1.0, 1.0]]


def test_which_answer_is_ahead_does_not_depend_on_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were chosen and rejected exchanged, the same gap stands with the other outcome."""
    pairs = [pair(f"p{i}", i + 1.0, 0.0) for i in range(20)]
    swapped = [
        Ranked({**p.row, "chosen": p.row["rejected"], "rejected": p.row["chosen"]}, p.r_rejected, p.r_chosen)
        for p in pairs
    ]
    monkeypatch.setattr(reward_calibration, "ranked", lambda *_: pairs)
    ahead = reward_calibration.first_ahead(None, Path("model"), "safety")  # type: ignore[arg-type]
    monkeypatch.setattr(reward_calibration, "ranked", lambda *_: swapped)
    other = reward_calibration.first_ahead(None, Path("model"), "safety")  # type: ignore[arg-type]
    assert [(prompt, (gap, 1 - chosen)) for prompt, (gap, chosen) in ahead] == other
    assert {chosen for _, (_, chosen) in ahead} == {0.0, 1.0}
    assert all((gap > 0) == (chosen == 1) for _, (gap, chosen) in ahead), "the higher score was always chosen here"


def made_up(arms: dict[str, dict[str, float]], facts: Callable[[str], dict[str, Any]] = lambda _: {}) -> Outcomes:
    """Three seeds of 60 prompts whose means are as given, with the same noise in all arms."""
    noise = np.random.default_rng(0).normal(0, 0.02, (3, 60))
    by = {
        arm: {
            seed: Outcome(
                {metric: {f"p{i}": mean + float(noise[seed, i]) for i in range(60)} for metric, mean in means.items()},
                facts(arm),
            )
            for seed in range(3)
        }
        for arm, means in arms.items()
    }
    return Outcomes(by)


def margin_outcomes(gain: float, split: float) -> Outcomes:
    rng = np.random.default_rng(0)
    one = rng.normal(size=300)
    modes = one + split * rng.choice([-1, 1], 300)
    accuracies = {"none": 0.8, "small": 0.8 + gain, "large": 0.8 + gain}
    return made_up(
        {arm: dict.fromkeys((*STRENGTHS, "all"), accuracy) for arm, accuracy in accuracies.items()},
        lambda arm: {"scores": {f"p{i}": [[r]] for i, r in enumerate(modes if arm == "large" else one)}},
    )


def safety_outcomes(recall: float, accuracy: float) -> Outcomes:
    answers = {f"p{i}": [[float(i % 7), float(i % 2)]] for i in range(40)}
    return made_up(
        {
            arm: {**dict.fromkeys(("all", "chosen_only", "both", "neither"), 0.6 + accuracy * told), "recall": 0.5 + recall * told, "false alarm": 0.2}
            for arm, told in (("without", 0), ("with", 1))
        },
        lambda _: {"answers": answers},
    )  # fmt: skip


def scaling_outcomes(by_size: float, by_share: float) -> Outcomes:
    pairs = dict(zip(reward_scaling.SHARES, (10, 20, 40, 80)))
    return made_up(
        {
            arm: {name: 0.6 + by_size * s + by_share * n for n, name in enumerate(reward_scaling.SHARES)}
            for s, arm in enumerate(reward_scaling.SIZES)
        },
        lambda _: {"pairs": pairs, "parameters": 10**6},
    )


def two_outcomes(own: float) -> Outcomes:
    levels = {arm: {"helpful": 0.6, "safety": 0.6} for arm in one_or_two_reward_models.ARMS}
    levels["helpfulness"]["helpful"] += own
    levels["safety"]["safety"] += own
    return made_up(levels)


def calibration_outcomes(truth: float) -> Outcomes:
    """`truth` 1: scores follow the grades, and choices the probabilities; -1: the opposite."""
    rng = np.random.default_rng(0)
    grades = rng.integers(1, 8, 400).astype(float)
    gaps = rng.normal(0, 2, 1500)
    chosen = rng.random(1500) < 1 / (1 + np.exp(-truth * gaps))
    facts = {
        "graded": {f"p{i}": [[truth * g + e, g]] for i, (g, e) in enumerate(zip(grades, rng.normal(size=400)))},
        "ahead": {f"p{i}": [[g, float(c)]] for i, (g, c) in enumerate(zip(gaps, chosen))},
    }
    arms = {arm: {"helpfulness grade 3": 0.1} for arm in reward_calibration.ARMS}
    return made_up(arms, lambda _: {"helpfulness": facts, "safety": facts})


@pytest.mark.parametrize(
    ("name", "outcomes", "verdict"),
    [
        ("margin", margin_outcomes(0.02, 4.0), "holds"),
        ("margin", margin_outcomes(-0.02, 4.0), "does not hold"),
        ("margin", margin_outcomes(0.02, 0.0), "not resolved"),
        ("safety-aux", safety_outcomes(0.1, 0.0), "holds"),
        ("safety-aux", safety_outcomes(0.1, -0.05), "does not hold"),
        ("safety-aux", safety_outcomes(-0.1, 0.02), "does not hold"),
        ("reward-scaling", scaling_outcomes(0.02, 0.03), "holds"),
        ("reward-scaling", scaling_outcomes(-0.02, 0.03), "does not hold"),
        ("reward-scaling", scaling_outcomes(0.02, -0.03), "does not hold"),
        ("one-or-two-reward-models", two_outcomes(0.03), "holds"),
        ("one-or-two-reward-models", two_outcomes(-0.03), "does not hold"),
        ("reward-calibration", calibration_outcomes(1.0), "holds"),
        ("reward-calibration", calibration_outcomes(-1.0), "does not hold"),
    ],
)
def test_a_claim_holds_or_not_as_the_figures_say(name: str, outcomes: Outcomes, verdict: str) -> None:
    conclusion = catalogue.study(name).conclude(outcomes)
    assert conclusion.verdict == verdict
    assert "NaN" not in json.dumps([[e.value, e.low, e.high] for e in conclusion.effects])


def test_sizes_are_averaged_unit_by_unit() -> None:
    arms = {"small": {"all": {"p": 0.0, "q": 1.0}}, "large": {"all": {"p": 1.0, "q": 1.0}}}
    every = reward_scaling.averaged(Outcomes({arm: {0: Outcome(values)} for arm, values in arms.items()}))
    assert every.values("all", reward_scaling.EVERY) == [{"p": 0.5, "q": 1.0}]
