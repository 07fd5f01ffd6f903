"""Figure 29 of the appendix: do scores rise with people's grades, and can differences of scores be read as probabilities?"""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from scipy.special import expit

from ayni.evals.calibration import BINS, chosen_first
from ayni.evals.reward_models import texts
from ayni.feedback.mix import DOMAIN, Kind
from ayni.feedback.pairs import encode_answer
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, level, negative
from ayni.studies.reward.of_scores import calibration_error, perfect_calibration_error, rank_correlation
from ayni.studies.reward.scored import (
    Blocks,
    blocked,
    by_prompt,
    curve,
    of_rows,
    padded,
    prompt_of,
    ranked,
    reward_model,
    rows_of,
    scoring,
    start,
)
from ayni.studies.study import Conclusion, Effect, Outcome, Panel, Series, Study
from ayni.text.sources import read_ratings

ARMS = ("none", "small", "large")  # margins
RECIPE = "small"  # the one that the claim is about
KINDS: tuple[Kind, ...] = ("helpfulness", "safety")
GRADES = range(1, 8)
CORRELATION, ERROR = 0.3, 0.1  # what the claim asks for; the paper gives no figure


def measure(lab: Lab, arm: str) -> Outcome:
    """Both reward models with the margin `arm`, each on its domain: scores of graded answers, and held-out pairs."""
    noted: list[tuple[str, str, float]] = []
    facts: dict[str, Any] = {}
    for kind in KINDS:
        model = reward_model(lab, kind, margin=arm)
        grades, ahead = graded(lab, model, DOMAIN[kind]), first_ahead(lab, model, DOMAIN[kind])
        noted += [(f"{kind} grade {median:g}", prompt, score) for prompt, (score, _, median) in grades]
        for prompt, (gap, chosen) in ahead:
            p = float(expit(gap))
            bin_of = min(int(p * BINS), BINS - 1)
            noted += [(f"{kind} predicted {bin_of}", prompt, p), (f"{kind} observed {bin_of}", prompt, chosen)]
        facts[kind] = {"graded": blocked((prompt, row[:2]) for prompt, row in grades), "ahead": blocked(ahead)}
    return Outcome(by_prompt(noted), facts)


def graded(lab: Lab, model: Path, domain: str) -> list[tuple[str, tuple[float, float, float]]]:
    """(prompt, (score, mean grade, median grade)) of a domain's answers that three people graded from 1 to 7."""
    score = scoring(lab, model)
    rows = [row for row in read_ratings(start(lab)[0] / "ratings.jsonl") if row["prompt_kind"] == domain]
    answers = [[{"role": "assistant", "content": row["answer"]}] for row in rows]
    scores = score.answers([encode_answer(score.tokenizer, row["messages"], a) for row, a in zip(rows, answers)])
    grades = [list(row["ratings"].values()) for row in rows]
    return [
        (json.dumps(row["messages"]), (r, statistics.fmean(given), statistics.median_low(given)))
        for row, r, given in zip(rows, scores, grades)
    ]


def first_ahead(lab: Lab, model: Path, domain: str) -> list[tuple[str, tuple[float, float]]]:
    """(prompt, (r_a - r_b, 1 if a was chosen)) of held-out pairs; which answer is a knows nothing of the choice."""
    ahead = []
    for pair in ranked(lab, model, domain):
        a_chosen = chosen_first(*texts(pair.row))
        gap = pair.r_chosen - pair.r_rejected
        ahead.append((prompt_of(pair.row), (gap if a_chosen else -gap, float(a_chosen))))
    return ahead


def conclude(outcomes: Outcomes) -> Conclusion:
    def blocks(arm: str, kind: Kind, name: str) -> list[Blocks]:
        return [outcomes.by[arm][seed].facts[kind][name] for seed in outcomes.seeds]

    def correlation(arm: str, kind: Kind) -> Effect:
        name = f"rank correlation of score and mean grade, {kind} model"
        return of_rows(blocks(arm, kind, "graded"), rank_correlation, name, "correlation", CORRELATION)

    def off(arm: str, kind: Kind) -> Effect:
        return of_rows(blocks(arm, kind, "ahead"), calibration_error, arm, "share")

    rows = []
    for arm, kind in itertools.product(ARMS, KINDS):
        perfect = [perfect_calibration_error(rows_of(block)) for block in padded(blocks(arm, kind, "ahead"))]
        cells = (correlation(arm, kind).cell(), off(arm, kind).cell(digits=3))
        rows.append([f"{arm}, {kind}", *cells, f"{statistics.fmean(perfect):.3f}" if perfect else "–"])
    reliability = [reliability_curve(outcomes, kind) for kind in KINDS]
    return Conclusion(
        effects=[
            *(correlation(RECIPE, kind) for kind in KINDS),
            *(negative(off(RECIPE, kind), f"calibration error, its sign turned, {kind} model", -ERROR) for kind in KINDS),
        ],
        columns=["margin, model", "rank correlation with grades", "expected calibration error", "of a perfect model on as many pairs"],
        rows=rows,
        panels=[
            Panel("scores by grade, ours", "median grade of three people", "mean score r", [curve(f"{kind} model", *_by_grade(outcomes, kind)) for kind in KINDS]),
            Panel("pairs, ours", "predicted: sigma(r_a - r_b)", "observed: a was chosen", [*reliability, Series("perfect", [0, 1], [0, 1])]),
        ],
        remarks=["Resampling adds noise to every bin, so that a calibration error's interval lies too high rather than too low; the last column says how much of an error is that of counting."],
    )  # fmt: skip


def _by_grade(outcomes: Outcomes, kind: Kind) -> tuple[list[int], list[Effect]]:
    levels = {grade: level(outcomes, f"{kind} grade {grade}", RECIPE, unit="score") for grade in GRADES}
    given = [grade for grade, effect in levels.items() if effect.value is not None]
    return given, [levels[grade] for grade in given]


def reliability_curve(outcomes: Outcomes, kind: Kind) -> Series:
    """Observed rate, with its interval, at the mean prediction of each bin."""
    pairs = [
        (level(outcomes, f"{kind} predicted {b}", RECIPE), level(outcomes, f"{kind} observed {b}", RECIPE))
        for b in range(BINS)
    ]
    pairs = [(predicted, observed) for predicted, observed in pairs if predicted.value is not None]
    return curve(
        f"{kind} model", [p.value for p, _ in pairs if p.value is not None], [observed for _, observed in pairs]
    )


STUDY = Study(
    name="reward-calibration",
    group="reward",
    claim="For both reward models scores rise with people's grades (rank correlation above 0.3), and sigma(r_a - r_b) is within 0.1 of how often a is chosen (expected calibration error).",
    paper="Figure 29: the mean score rises with the median of three people's grades from 1 to 7, on helpful and on safety prompts. The probabilities of pairs are our addition.",
    arms=ARMS,
    measure=measure,
    conclude=conclude,
    method="Both models on answers to prompts that nothing trains on, each graded by three of the annotators; and on held-out pairs in an order that knows nothing of the choice. "
    "The claim is about the small margin, the recipe's; a margin asks for differences beyond what the preferences bear out, so the table has the others.",
)
