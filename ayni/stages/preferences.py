"""Stage 4: preferences (paper 3.2.1). Two answers from two different model variants, a choice, a strength.

For every prompt: draw two variants, sample one answer from each, ask one annotator. Fresh answers of the latest models in
each round keep the reward models on distribution. With a curriculum the prompts get harder, and the dialogues longer, from
round to round.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import PreferenceSettings
from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.feedback.schema import STRENGTHS, Annotator, preference_row
from ayni.model.checkpoint import load_model
from ayni.plugins import plugin
from ayni.text.curriculum import prompts_of_round, turns
from ayni.text.prompts import draw_prompts, original_id, training_prompts
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Variant:
    """A model that answers: the two of a pair differ in `model`; each has a temperature of its own."""

    name: str
    model: Path


def run(
    settings: PreferenceSettings,
    data: Path,
    variants: list[Variant],
    out: Path,
    *,
    number: int,
    seed: int,
    rounds: Sequence[PreferenceSettings] | None = None,
) -> Artifact:
    """Writes train.jsonl and held_out.jsonl (preferences), and summary.json (counts by strength, annotator, safety, and
    how hard and long the prompts were).

    `number`: which round this is, from 1; `rounds`: the settings of all of them, which a curriculum is laid over (None:
    this is the last of rounds like it).
    """
    rounds = rounds or [settings] * number
    if len({variant.model for variant in variants}) < 2:
        raise ValueError("preferences need two different model variants (paper 3.2.1); give at least two models")

    def work_in(work: Path) -> None:
        rng = random.Random(row_seed(seed, f"preferences-{number}"))
        if settings.curriculum == "off":
            rows = draw_prompts(training_prompts(data), settings.pairs, rng)
        else:
            rows = prompts_of_round(training_prompts(data, long_dialogues=True), rounds, number, seed)
        annotators: list[Annotator] = plugin("annotators", settings.annotators)(data, seed=seed, **settings.options)
        pairs = [rng.sample(range(len(variants)), 2) for _ in rows]
        temperatures = [[rng.choice(settings.temperatures) for _ in range(2)] for _ in rows]
        answers = _answers(settings, rows, variants, pairs, temperatures, row_seed(seed, f"preferences {number}"))

        kept: list[dict[str, Any]] = []
        dropped = Counter[str]()
        for index, row in enumerate(rows):
            annotator = rng.choice(annotators)
            texts = (answers[index][0], answers[index][1])
            if texts[0].strip() == texts[1].strip():
                dropped["equal answers"] += 1
                continue
            judgement = annotator.compare(row, *texts, rng)
            names = (variants[pairs[index][0]].name, variants[pairs[index][1]].name)
            preference = preference_row(row, texts, judgement, names, number, annotator.name)
            if preference is None:
                dropped["chosen unsafe, rejected safe"] += 1
            else:
                kept.append(preference)
        if len(kept) < 10:
            raise ValueError(
                f"only {len(kept)} of {len(rows)} pairs could be kept ({dict(dropped)}): the variants answer alike; raise `temperatures` or `pairs`"
            )
        held_out = [is_held_out(row["id"], settings.held_out) for row in kept]
        write_jsonl(work / "train.jsonl", (row for row, out_of_training in zip(kept, held_out) if not out_of_training))
        write_jsonl(work / "held_out.jsonl", (row for row, out_of_training in zip(kept, held_out) if out_of_training))
        write_json(work / "summary.json", _summary(kept, dropped, sum(held_out), rows))
        telemetry.say(f"{len(kept)} preferences from {len(rows)} prompts ({sum(held_out)} held out)")

    inputs: dict[str, Path | None] = {"data": data, **{variant.name: variant.model for variant in variants}}
    stage_settings = {**settings.model_dump(), "round": number, "variants": [variant.name for variant in variants]}
    if settings.curriculum != "off":
        stage_settings["rounds"] = [[each.pairs, each.band] for each in rounds]
    return build(out, "preferences", stage_settings, inputs, seed, work_in)


def is_held_out(prompt_id: str, held_out: float) -> bool:
    """Decided by the prompt, the same in all rounds: a prompt that is held out once never trains a reward model."""
    return row_seed(0, f"held out {original_id(prompt_id)}") % 10_000 < 10_000 * held_out


def _answers(
    settings: PreferenceSettings,
    rows: list[dict[str, Any]],
    variants: list[Variant],
    pairs: list[list[int]],
    temperatures: list[list[float]],
    seed: int,
) -> list[list[str]]:
    """Texts [row][side], sampled variant by variant so that each model is loaded once and answers in big batches."""
    answers = [["", ""] for _ in rows]
    with telemetry.progress("sampling pairs", 2 * len(rows), "answers") as bar:
        for index, variant in enumerate(variants):
            asked = [(i, side) for i, pair in enumerate(pairs) for side in range(2) if pair[side] == index]
            tokenizer = load_tokenizer(variant.model)
            engine = Engine(load_model(variant.model, "auto"), tokenizer)
            sampled = sample_answers(
                engine,
                tokenizer,
                [rows[i] for i, _ in asked],
                temperature=[temperatures[i][side] for i, side in asked],
                max_new_tokens=settings.max_new_tokens,
                seed=row_seed(seed, variant.name),
                bar=bar,
            )
            for (i, side), [answer] in zip(asked, sampled):
                answers[i][side] = answer.text
    return answers


def _summary(
    kept: list[dict[str, Any]], dropped: Counter[str], held_out: int, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    graded = [row["meta"]["difficulty"] for row in rows if "difficulty" in row["meta"]]
    return {
        "pairs": len(kept),
        "held_out": held_out,
        "dropped": dict(dropped),
        "strength": {STRENGTHS[level]: sum(row["strength"] == level for row in kept) for level in range(4)},
        "safety": dict(Counter(row["safety"] for row in kept if row["safety"])),
        "annotator": dict(sorted(Counter(row["annotator"] for row in kept).items())),
        "prompt_kind": dict(Counter(row["prompt_kind"] for row in kept)),
        "variants": dict(sorted(Counter(name for row in kept for name in row["variants"]).items())),
        "turns": {str(n): count for n, count in sorted(Counter(turns(row) for row in rows).items())},
        "difficulty": round(sum(graded) / len(graded), 4) if graded else None,
    }
