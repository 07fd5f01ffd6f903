"""Stage: safety context distillation (paper 4.2.4), on adversarial prompts alone: it makes helpful answers worse.

    sample   a  ~ pi_latest(. | p)          the original answer
             a' ~ pi_latest(. | [x; p])     under the preprompt x: generic, or the template of p's risk category
    keep     a' where R_s(a' | p) > R_s(a | p), p without x for both       (`gate: false`: every a')
    train    -1/|a'| log pi(a' | p)         as in SFT; x is nowhere in what is trained on

The latest model both samples and is trained. Only answers that ended are kept.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, is_artifact, read_manifest, write_json
from ayni.config import DistillationSettings
from ayni.engine.answers import Answer, answers_in, row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.checkpoint import check_vocabulary, load_model
from ayni.scoring.reward import RewardModel, load_reward_model, score_answers
from ayni.telemetry import ProgressBar
from ayni.text.dialogue import encode_prompt
from ayni.text.preprompts import BANKS, Preprompts, load_preprompts, with_preprompt
from ayni.text.prompts import adversarial_prompts, draw_prompts
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.fitting import fine_tune
from ayni.train.mesh import open_mesh

SAMPLES = "samples.jsonl"  # what is trained on
ANSWERS = "answers.jsonl"  # both answers to every prompt, their scores, and what became of them
SUMMARY = "summary.json"
Row = dict[str, Any]
Asked = tuple[Row, str]  # a prompt, and the preprompt it is sampled under (empty: none)
# What became of a distilled answer.
KEPT, LOWER, CUT, LONG = "kept", "lower", "cut", "long"


@dataclass(frozen=True)
class Distilled:
    """A prompt with its two answers. Both have the ids of the prompt without the preprompt as their `prompt_ids`."""

    row: Row
    preprompt: str  # empty: none
    original: Answer
    answer: Answer  # sampled under the preprompt
    score_original: float = 0.0  # raw, by the safety reward model
    score: float = 0.0
    fate: str = KEPT

    @property
    def category(self) -> str:
        return category_of(self.row)


def run(settings: DistillationSettings, prompts: Path, model: Path, safety: Path, out: Path, *, seed: int) -> Artifact:
    """Samples both answers from `model`, scores them by the reward model `safety`, fine-tunes `model` on those kept.

    `prompts`: a file of adversarial prompts, or a data directory with prompts_train.jsonl. Writes a model, samples.jsonl,
    answers.jsonl and summary.json. ValueError if nothing is kept.
    """
    mesh = open_mesh()

    def work_in(work: Path) -> None:
        bank = load_preprompts(settings.bank)
        rows, left_out = adversarial_prompts(prompts)
        if settings.prompts is not None:
            rows = draw_prompts(rows, settings.prompts, random.Random(row_seed(seed, "distillation")))
        judge = load_safety_model(safety)
        tokenizer, policy = load_tokenizer(model), load_model(model)
        check_vocabulary(policy.settings, tokenizer, str(model))
        asked = planned(settings, bank, rows, seed)
        engine = Engine(load_model(model, settings.precision), tokenizer)
        pairs, context = sampled(engine, tokenizer, asked, settings, seed)
        if not pairs:
            raise ValueError(
                f"{prompts}: no prompt leaves room for an answer of {settings.max_new_tokens} tokens in a context of {engine.max_len}"
            )
        found = gated(scored(pairs, tokenizer, judge, load_tokenizer(safety), settings.row_len), settings)
        summary = {**summary_of(found), "left_out": left_out, "context": context}
        telemetry.say(
            f"  {summary['kept']} of {summary['sampled']} answers kept; mean safety score {summary['original']:.2f} -> "
            f"{summary['distilled']:.2f} under the preprompt -> {summary['after']:.2f} after the gate"
        )
        kept = [one for one in found if one.fate == KEPT]
        if not kept:
            raise ValueError(
                f"{model}: none of {len(found)} answers is kept ({summary['lower']} scored no higher than the original, {summary['cut']} "
                f"did not end, {summary['long']} were longer than a row), so there is nothing to train on: try another preprompt, raise "
                "max_new_tokens or row_len, or give more prompts"
            )
        if mesh.is_main:
            write_jsonl(work / SAMPLES, map(training_row, kept))
            write_jsonl(work / ANSWERS, map(answers_row, found))
            write_json(work / SUMMARY, summary)
        fine_tune(
            work,
            "context distillation",
            policy,
            tokenizer,
            [masked(one) for one in kept],
            settings,
            epochs=settings.epochs,
            mesh=mesh,
            seed=seed,
        )

    inputs: dict[str, Path | None] = {"prompts": prompts, "model": model, "safety": safety}
    inputs |= {f"bank {name}": Path(name) for name in settings.bank if name not in BANKS}
    return build(out, "distillation", settings.model_dump(), inputs, seed, work_in)


def load_safety_model(directory: Path) -> RewardModel:
    """ValueError for a reward model that this package trained for something else than safety."""
    stage = str(read_manifest(directory)["stage"]) if is_artifact(directory) else ""
    if stage.startswith("reward-") and stage != "reward-safety":
        raise ValueError(
            f"{directory}: a {stage.removeprefix('reward-')} reward model; the gate asks a safety model (ayni reward --kind safety)"
        )
    return load_reward_model(directory)


def category_of(row: Row) -> str:
    """The prompt's risk category; empty if nobody said."""
    return str(row["meta"].get("category", ""))


def planned(settings: DistillationSettings, bank: Preprompts, rows: Sequence[Row], seed: int) -> list[Asked]:
    """(prompt, preprompt) of every row; a preprompt depends on the seed and the prompt's id alone."""
    if helpful := next((row for row in rows if row["prompt_kind"] != "safety"), None):
        raise ValueError(f"{helpful['id']}: a helpful prompt; safety distillation is for adversarial prompts alone")
    if settings.preprompt == "none":
        return [(row, "") for row in rows]
    names = ", ".join(settings.bank)
    by_category = settings.preprompt == "template"
    if by_category and not any(bank.wordings(category_of(row)) for row in rows):
        given = ", ".join(sorted({category_of(row) or "none" for row in rows})[:8])
        raise ValueError(
            f"{names}: no template for any risk category of the prompts ({given}); the bank has {', '.join(bank.categories) or 'none'}. "
            'Give the prompts {"meta": {"category": ...}}, add wordings under categories, or take the generic preprompts'
        )
    asked = []
    for row in rows:
        category = category_of(row) if by_category and bank.wordings(category_of(row)) else None
        if not bank.wordings(category):
            raise ValueError(
                f"{names}: the bank has no generic preprompt, and {row['id']} needs one; add some, or join general"
            )
        asked.append((row, bank.worded(category, random.Random(row_seed(seed, f"preprompt {row['id']}")))))
    return asked


def sampled(
    engine: Engine, tokenizer: Tokenizer, asked: Sequence[Asked], settings: DistillationSettings, seed: int
) -> tuple[list[Distilled], int]:
    """Both answers to every prompt, and how many prompts the context had no room for.

    The originals depend on nothing but seed and model, so that runs with other preprompts have the same ones.
    """
    plain = [encode_prompt(tokenizer, row["messages"]) for row, _ in asked]
    under = [
        encode_prompt(tokenizer, with_preprompt(row["messages"], said)) if said else ids
        for (row, said), ids in zip(asked, plain)
    ]
    fits = [i for i, ids in enumerate(under) if len(ids) + settings.max_new_tokens <= engine.max_len]
    rows = [asked[i][0] for i in fits]
    with telemetry.progress("sampling without and with a preprompt", 2 * len(fits), "answers") as bar:
        originals, answers = (
            _answers(engine, tokenizer, rows, [prompts[i] for i in fits], settings, row_seed(seed, name), bar)
            for name, prompts in (("distillation, original", plain), ("distillation", under))
        )
    found = [
        Distilled(asked[i][0], asked[i][1], original, replace(answer, prompt_ids=plain[i]))
        for i, original, answer in zip(fits, originals, answers)
    ]
    return found, len(asked) - len(fits)


def _answers(
    engine: Engine,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    prompts: list[list[int]],
    settings: DistillationSettings,
    seed: int,
    bar: ProgressBar,
) -> list[Answer]:
    answers = sample_answers(
        engine,
        tokenizer,
        rows,
        prompts=prompts,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=seed,
        bar=bar,
    )
    return [answer for [answer] in answers]


def scored(
    pairs: Sequence[Distilled], tokenizer: Tokenizer, judge: RewardModel, its_tokenizer: Tokenizer, row_len: int
) -> list[Distilled]:
    """The reward model's raw scores of both answers; it sees neither with the preprompt."""
    rows = [pair.row for pair in pairs]
    answers = answers_in(its_tokenizer, tokenizer, rows, [[pair.original, pair.answer] for pair in pairs])
    score_N2 = score_answers(judge, [one for both in answers for one in both], row_len).view(-1, 2)
    return [
        replace(pair, score_original=before, score=after) for pair, (before, after) in zip(pairs, score_N2.tolist())
    ]


def gated(pairs: Sequence[Distilled], settings: DistillationSettings) -> list[Distilled]:
    """Each with its fate; an answer that is cut, says nothing or does not fit the row is never kept, gate or no gate."""

    def fate(pair: Distilled) -> str:
        if not (pair.answer.ended and pair.answer.text):
            return CUT
        if len(pair.answer.prompt_ids) + len(pair.answer.ids) > settings.row_len:
            return LONG
        return LOWER if settings.gate and not pair.score > pair.score_original else KEPT

    return [replace(pair, fate=fate(pair)) for pair in pairs]


def masked(pair: Distilled) -> tuple[list[int], list[bool]]:
    """(ids, loss mask) of the prompt without its preprompt and the answer under it: loss on the answer alone."""
    before, answer = pair.answer.prompt_ids, pair.answer.ids
    return before + answer, [False] * len(before) + [True] * len(answer)


def training_row(pair: Distilled) -> Row:
    return {
        "id": pair.row["id"],
        "category": pair.category,
        "messages": [*pair.row["messages"], {"role": "assistant", "content": pair.answer.text}],
        "prompt_ids": pair.answer.prompt_ids,
        "answer_ids": pair.answer.ids,
        "score_original": round(pair.score_original, 4),
        "score": round(pair.score, 4),
    }


def answers_row(pair: Distilled) -> Row:
    return {
        "id": pair.row["id"],
        "category": pair.category,
        "preprompt": pair.preprompt,
        "messages": pair.row["messages"],
        "original": pair.original.text,
        "distilled": pair.answer.text,
        "score_original": pair.score_original,
        "score": pair.score,
        "fate": pair.fate,
    }


def summary_of(pairs: Sequence[Distilled]) -> dict[str, Any]:
    """Counts and mean scores, in all and by risk category; `after`: of the answer that stands, kept or original."""
    names = sorted({pair.category for pair in pairs})
    return {**_means(pairs), "categories": {name: _means([p for p in pairs if p.category == name]) for name in names}}


def _means(pairs: Sequence[Distilled]) -> dict[str, Any]:
    fates = Counter(pair.fate for pair in pairs)
    stands = [pair.score if pair.fate == KEPT else pair.score_original for pair in pairs]
    return {
        "sampled": len(pairs),
        **{fate: fates[fate] for fate in (KEPT, LOWER, CUT, LONG)},
        "original": _mean([pair.score_original for pair in pairs]),
        "distilled": _mean([pair.score for pair in pairs]),
        "after": _mean(stands),
    }


def _mean(scores: Sequence[float]) -> float:
    return round(sum(scores) / max(1, len(scores)), 4)
