"""Table 28 on real preferences: margins by the strength of a judge's preference, from a chat model of the user's."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from ayni.artifacts import Artifact, build
from ayni.config import OptimizerSettings, RewardSettings
from ayni.evals.baselines import baselines
from ayni.evals.reward_models import Ranked, Row, Scoring
from ayni.feedback.pairs import encode_side
from ayni.feedback.schema import STRENGTHS
from ayni.scoring.reward import load_reward_model
from ayni.stages import reward
from ayni.studies.lab import Lab, changed
from ayni.studies.paired import Outcomes, level
from ayni.studies.reward import margin
from ayni.studies.reward.scored import blocked, by_prompt
from ayni.studies.study import Conclusion, Outcome, Study
from ayni.text.sources import read_preferences, write_jsonl
from ayni.text.tokenizer import load_tokenizer

TRAIN, HELD_OUT = 240, 200  # pairs
SMALL = (24, 12)
ROW_LEN = 192  # tokens: longer pairs are left out, so that a model of 135M parameters takes minutes on one core
SETTINGS = RewardSettings(
    row_len=ROW_LEN, batch_pairs=8, micro_rows=4, mix="own", warmup_share=0.03, optimizer=OptimizerSettings(lr=5e-5)
)
BASELINES = {"longer": "the longer answer", "length": "fitted to lengths", "words": "fitted to words"}


def measure(lab: Lab, arm: str) -> Outcome:
    """A reward model with the margin `arm`: which held-out pairs it ranks right, and what length and words alone rank right."""
    pairs = ranked(lab, arm)
    train = [answers(row) for row in read_preferences(gathered(lab) / "train.jsonl")]
    beside = baselines(train, [answers(pair.row) for pair in pairs])
    points = {"": [float(pair.right) for pair in pairs], **{f"{name} ": beside[name] for name in BASELINES}}
    values = by_prompt(
        (by + strength, prompt_of(pair.row), points[by][i])
        for i, pair in enumerate(pairs)
        for strength in ("all", STRENGTHS[pair.row["strength"]])
        for by in points
    )
    scores = blocked((prompt_of(pair.row), [r]) for pair in pairs for r in (pair.r_chosen, pair.r_rejected))
    return Outcome(values, {"scores": scores})


def ranked(lab: Lab, arm: str) -> list[Ranked]:
    model = lab.given["model"]
    settings = changed(SETTINGS, margin=arm, **({"row_len": 96} if lab.smoke else {}))
    tuned = lab.make("reward-helpfulness", reward.run, settings, "helpfulness", model, [gathered(lab)])
    scoring = Scoring(load_reward_model(tuned), load_tokenizer(tuned), settings.row_len)
    return scoring.rank(read_preferences(gathered(lab) / "held_out.jsonl"))


def gathered(lab: Lab) -> Path:
    return lab.make("preferences", drawn, lab.given["preferences"], lab.given["model"], small=lab.smoke)


def drawn(preferences: Path, model: Path, out: Path, *, small: bool, seed: int) -> Artifact:
    """This seed's pairs as train.jsonl and held_out.jsonl, half of the prompts each; ValueError if too few are short enough."""
    train, held_out = SMALL if small else (TRAIN, HELD_OUT)

    def work_in(work: Path) -> None:
        tokenizer, rng = load_tokenizer(model), random.Random(seed)
        rows = [
            {**row, "prompt_kind": "helpful"}
            for row in read_preferences(preferences)
            if row.get("strength") is not None
            and all(sum(map(len, encode_side(tokenizer, row, side))) <= ROW_LEN for side in ("chosen", "rejected"))
        ]
        prompts = sorted({prompt_of(row) for row in rows})
        rng.shuffle(prompts)
        rng.shuffle(rows)
        tested = set(prompts[: len(prompts) // 2])
        for name, count, test in (("train", train, False), ("held_out", held_out, True)):
            mine = [row for row in rows if (prompt_of(row) in tested) == test]
            if len(mine) < count:
                raise ValueError(
                    f"{preferences}: {len(mine)} pairs of half of the prompts have a grade and fit {ROW_LEN} tokens; {count} are needed"
                )
            write_jsonl(work / f"{name}.jsonl", mine[:count])

    inputs: dict[str, Path | None] = {"preferences": preferences, "model": model}
    return build(out, "preferences", {"small": small, "row_len": ROW_LEN}, inputs, seed, work_in)


def prompt_of(row: Row) -> str:
    return str(row["prompt"][-1]["content"])


def answers(row: Row) -> tuple[str, str]:
    chosen, rejected = (row[side][-1]["content"] for side in ("chosen", "rejected"))
    return chosen, rejected


def conclude(outcomes: Outcomes) -> Conclusion:
    """The study of margins, with what length and words alone reach below."""
    found = margin.conclude(outcomes)
    strengths: list[Any] = [*reversed(STRENGTHS), "all"]
    beside = [
        [words, *(level(outcomes, f"{name} {strength}", "none").cell(100, 1) for strength in strengths), "–"]
        for name, words in BASELINES.items()
    ]
    return replace(found, rows=[*found.rows, *beside])


STUDY = Study(
    name="margin-real",
    group="real",
    claim=margin.STUDY.claim,
    paper=margin.STUDY.paper,
    arms=margin.STUDY.arms,
    measure=measure,
    conclude=conclude,
    needs=("model", "preferences"),
    method=f"Real graded preferences: {TRAIN} pairs of up to {ROW_LEN} tokens an answer with its prompt, one epoch from a chat model, with each margin; "
    f"{HELD_OUT} held-out pairs of other prompts, both drawn anew by each seed. A judge's probability of the chosen answer gives the strength (0.6, 0.8, 0.95). "
    "Below the models what the length of the answers and their words alone rank right. A prompt, with all its pairs, is the unit of evidence.",
)
