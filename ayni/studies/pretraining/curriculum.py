"""Section 3.2.1 and figure 26: annotation prompts that get harder from round to round, against the same prompts shuffled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.evals.reward_models import Scoring
from ayni.model.checkpoint import load_model
from ayni.scoring.reward import Scorers, load_reward_model, load_reward_models
from ayni.stages import preferences
from ayni.stages.preferences import Variant
from ayni.studies.lab import Lab, changed
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.pretraining.held_out_text import ANSWER
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.studies.verdicts import judged
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import load_tokenizer

ARMS = ("rising", "shuffled")
ROUNDS = (1, 2)
PAIRS, PROMPTS = 1200, 400  # a round's, of preferences and of rejection sampling
SAMPLES = 20  # figure 26


def measure(lab: Lab, arm: str) -> Outcome:
    """Two rounds of preferences, reward models and rejection sampling; the second model, and what the reward models say."""
    data = lab.data()
    base = lab.base(data)
    start = latest = lab.sft(data, base)
    variants = lab.variants(data, base)
    gathered: list[Path] = []
    earlier: list[Path] = []
    sizes = {} if lab.smoke else {"pairs": PAIRS}
    settings = changed(lab.version.preferences, curriculum=arm, **sizes)
    rounds = [settings for _ in ROUNDS]
    for number in ROUNDS:
        gathered.append(
            lab.make("preferences", preferences.run, settings, data, variants, number=number, rounds=rounds)
        )
        scorers = lab.scorers(data, latest, gathered)
        prompts = {} if lab.smoke else {"prompts": PROMPTS}
        latest = lab.rejection(data, latest, start, scorers, earlier, number=number, **prompts)
        earlier.append(latest)
        variants = [Variant(f"v{number}", latest), variants[0]]
    values: dict[str, dict[str, float]] = {**judged(lab.evaluate(data, latest), data)}
    values["accuracy"] = _accuracy(lab, lab.preferences(data, lab.variants(data, base)), scorers)
    for number, artifact in zip(ROUNDS, gathered):
        for name, rewards in _rewards(lab, artifact, start, scorers).items():
            values[f"{name} {number}"] = rewards
    for name in ("max", "median"):
        means = [float(np.mean(list(values[f"{name} {number}"].values()))) for number in ROUNDS]
        values[f"fall of {name}"] = {"all": means[0] - means[-1]}
    return Outcome(values)


def _accuracy(lab: Lab, neutral: Path, scorers: Scorers) -> dict[str, float]:
    """Of the last helpfulness model, on held-out pairs that neither arm has seen."""
    assert scorers.helpfulness is not None
    rows = [row for row in read_preferences(neutral / "held_out.jsonl") if row["prompt_kind"] == "helpful"]
    model, tokenizer = load_reward_model(scorers.helpfulness), load_tokenizer(scorers.helpfulness)
    ranked = Scoring(model, tokenizer, lab.version.reward.row_len).rank(rows)
    return {pair.row["id"]: float(pair.right) for pair in ranked}


def _rewards(lab: Lab, gathered: Path, model: Path, scorers: Scorers) -> dict[str, dict[str, float]]:
    """Max and median reward of the SFT model's samples to a round's held-out prompts, in standard deviations."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_preferences(gathered / "held_out.jsonl"):
        found.setdefault(row["id"], {"id": row["id"], "messages": row["prompt"], "prompt_kind": row["prompt_kind"]})
    rows, n = list(found.values()), 4 if lab.smoke else SAMPLES
    tokenizer = load_tokenizer(model)
    engine = Engine(load_model(model), tokenizer)
    seed = row_seed(lab.seed, "curriculum")
    answers = sample_answers(engine, tokenizer, rows, n=n, temperature=1.0, max_new_tokens=2 * ANSWER, seed=seed)
    reward_NK = load_reward_models(scorers).of_answers(rows, answers, 256).gated.view(len(rows), n).numpy()
    reward_NK = reward_NK / reward_NK.std()
    figures = {"max": reward_NK.max(1), "median": np.median(reward_NK, 1)}
    return {name: {row["id"]: float(x) for row, x in zip(rows, reward_N)} for name, reward_N in figures.items()}


def conclude(outcomes: Outcomes) -> Conclusion:
    metrics = ("utility", "right", "facts_right", "violation", "accuracy")
    rewards = {
        arm: {name: [level(outcomes, f"{name} {n}", arm) for n in ROUNDS] for name in ("max", "median")} for arm in ARMS
    }
    rows = [
        [
            arm,
            level(outcomes, metrics[0], arm).cell(),
            *(level(outcomes, metric, arm).cell(100, 1) for metric in metrics[1:]),
            *(e.cell() for name in ("max", "median") for e in rewards[arm][name]),
        ]
        for arm in ARMS
    ]
    deviations = "standard deviations"
    return Conclusion(
        effects=[
            difference(outcomes, "utility", *ARMS, "utility after two rounds, rising minus shuffled", "points"),
            level(outcomes, "fall of max", "rising", f"rising: max reward of {SAMPLES}, round 1 minus round 2", deviations),
            level(outcomes, "fall of median", "rising", f"rising: median reward of {SAMPLES}, round 1 minus round 2", deviations),
        ],
        columns=["prompts", "utility after two rounds", "right, %", "facts right, %", "violations, %", "reward model's accuracy, %", *(f"{name} reward, round {n}" for name in ("max", "median") for n in ROUNDS)],
        rows=rows,
        panels=[
            Panel(f"reward of {SAMPLES} samples to a round's prompts", "round", deviations, [Series(f"{arm}, {name}", list(ROUNDS), [e.value for e in es], [e.low for e in es], [e.high for e in es]) for arm in ARMS for name, es in rewards[arm].items()]),
        ],
        remarks=["One and the same SFT model answers the prompts of both rounds, and one and the same reward models (the last ones) score them."],
    )  # fmt: skip


STUDY = Study(
    name="curriculum",
    group="pretraining",
    claim="Prompts that get harder from round to round make a more useful model after two rounds than the same prompts in any order; the best and the median reward of a model's samples fall from one round to the next.",
    paper="Figure 26: with more complex prompts over time the max and the median reward of 20 samples fall over the batches; the paper has no shuffled arm.",
    arms=ARMS,
    measure=measure,
    conclude=conclude,
    method="Two rounds of preferences, reward models and rejection sampling from one SFT model; both arms see the same prompts in all, ranked by difficulty or dealt at random.",
)  # fmt: skip
