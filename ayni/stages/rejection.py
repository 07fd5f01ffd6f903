"""Stage: rejection sampling (paper 3.2.3). K answers to each prompt from the latest model, the best by the reward
models at hand becomes the target, and the version's start model is fine-tuned on those targets as in SFT.

    y*(x) = argmax_k R_c(y_k | x),   y_1..y_K ~ pi_latest(. | x)

From V4 on, the top samples of all earlier versions join (V3, without them, forgot). Another model than the latest may
answer (`sampler`): the paper's smaller models were fine-tuned on the largest one's samples.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import RejectionSettings
from ayni.engine.answers import Answer, answers_in, row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.checkpoint import load_model
from ayni.scoring.best_of import by_k
from ayni.scoring.reward import Scorers, load_reward_models
from ayni.text.prompts import draw_prompts, training_prompts
from ayni.text.sources import read_jsonl, write_jsonl
from ayni.text.tokenizer import load_tokenizer
from ayni.train.compiling import wanted
from ayni.train.fitting import fine_tune
from ayni.train.mesh import open_mesh

SAMPLES = "samples.jsonl"
SUMMARY = "summary.json"
REWARDS = "rewards.json"


def run(
    settings: RejectionSettings,
    prompts: Path,
    latest: Path,
    start: Path,
    scorers: Scorers,
    earlier: list[Path],
    out: Path,
    *,
    version: int,
    seed: int,
    ghost: Path | None = None,
) -> Artifact:
    """Samples from `latest` (or `settings.sampler`), fine-tunes `start` (or `latest`, by setting).

    Writes a model, samples.jsonl (this version's targets), rewards.json (fig. 7) and summary.json. `prompts`: a file of
    prompt rows, or a data directory with prompts_train.jsonl. `earlier`: artifacts of this stage from the versions before.
    `ghost`: an artifact of Ghost Attention, whose dialogues join as they are; one that is longer than a row is left out.
    """
    mesh = open_mesh()
    begin = start if settings.start == "sft" else latest
    sampler = settings.sampler or latest
    carried = earlier if version >= settings.carry_over_from else []

    def work_in(work: Path) -> None:
        tokenizer, tuned_in = load_tokenizer(sampler), load_tokenizer(begin)
        rng = random.Random(row_seed(seed, f"rejection-{version}"))
        rows = draw_prompts(training_prompts(prompts, long_dialogues=settings.long_dialogues), settings.prompts, rng)
        policy = load_model(sampler, settings.precision)
        # Two operations per weight and token, if every answer took all it may.
        operations = (
            2.0 * sum(p.numel() for p in policy.parameters()) * len(rows) * settings.k * settings.max_new_tokens
        )
        with telemetry.progress(f"sampling {settings.k} answers a prompt", settings.k * len(rows), "answers") as bar:
            answers = sample_answers(
                Engine(policy, tokenizer, compiled=wanted(settings.compile, operations, mesh)),
                tokenizer,
                rows,
                n=settings.k,
                temperature=settings.temperature,
                max_new_tokens=settings.max_new_tokens,
                seed=row_seed(seed, f"rejection {version}"),
                bar=bar,
            )
        scored = answers_in(load_tokenizer(scorers.helpfulness), tokenizer, rows, answers)
        reward_NK = load_reward_models(scorers, settings.gate).of_answers(rows, scored, settings.row_len).gated
        reward_NK = reward_NK.view(len(rows), settings.k)
        best = pick(rows, answers_in(tuned_in, tokenizer, rows, answers), reward_NK)
        joining = [sample for artifact in carried for sample in read_jsonl(artifact / SAMPLES)]
        dialogues = whole_dialogues(ghost, settings.row_len) if ghost is not None else []
        if mesh.is_main:
            write_jsonl(work / SAMPLES, best)
            write_json(work / REWARDS, by_k(reward_NK))
            counts = {"prompts": len(rows), "targets": len(best), "carried": len(joining)}
            if ghost is not None:
                counts["ghost"] = len(dialogues)
            write_json(work / SUMMARY, {"temperature": settings.temperature, "k": settings.k, **counts})
        telemetry.say(
            f"  {len(best)} targets"
            + (f" and {len(joining)} of earlier versions" if joining else "")
            + (f" and {len(dialogues)} dialogues of Ghost Attention" if dialogues else "")
            + f"; mean reward {reward_NK.mean():.2f} -> best of {settings.k} {reward_NK.max(1).values.mean():.2f}"
        )

        policy = load_model(begin)
        samples = [target(sample, settings.row_len) for sample in [*best, *joining, *dialogues]]
        fine_tune(
            work,
            "fine-tuning on the best",
            policy,
            tuned_in,
            samples,
            settings,
            epochs=settings.epochs,
            mesh=mesh,
            seed=seed,
        )

    inputs: dict[str, Path | None] = {
        "prompts": prompts,
        "latest": sampler,
        "start": begin,
        "helpfulness": scorers.helpfulness,
        "safety": scorers.safety,
        "ghost": ghost,
        **{f"earlier {i}": path for i, path in enumerate(carried, 1)},
    }
    stage_settings = {**settings.model_dump(exclude={"sampler"}), "version": version}  # the sampler is an input
    return build(out, "rejection", stage_settings, inputs, seed, work_in)


def whole_dialogues(ghost: Path, row_len: int) -> list[dict[str, Any]]:
    """Ghost Attention's dialogues that fit a row: one that lost its beginning would teach to follow what nobody said."""
    samples = read_jsonl(ghost / SAMPLES)
    return [sample for sample in samples if len(sample["prompt_ids"]) + len(sample["answer_ids"]) <= row_len]


def target(sample: dict[str, Any], row_len: int) -> tuple[list[int], list[bool]]:
    """(ids, loss mask) of a picked answer; a prompt too long for the row loses its beginning."""
    ids = sample["prompt_ids"] + sample["answer_ids"]
    mask = [False] * len(sample["prompt_ids"]) + [True] * len(sample["answer_ids"])
    return ids[-row_len:], mask[-row_len:]


def pick(rows: list[dict[str, Any]], answers: list[list[Answer]], reward_NK: torch.Tensor) -> list[dict[str, Any]]:
    """The best answer to each prompt, among those that ended: an answer cut by length would teach never to stop."""
    best = []
    for row, samples, rewards in zip(rows, answers, reward_NK.tolist()):
        ended = [(reward, -k) for k, (reward, answer) in enumerate(zip(rewards, samples)) if answer.ended]
        if ended:
            reward, minus_k = max(ended)
            answer = samples[-minus_k]
            best.append(
                {
                    "id": row["id"],
                    "messages": [*row["messages"], {"role": "assistant", "content": answer.text}],
                    "prompt_ids": answer.prompt_ids,
                    "answer_ids": answer.ids,
                    "reward": round(reward, 4),
                }
            )
    if not best:
        raise ValueError("no sampled answer ended before max_new_tokens: raise it, or lower the temperature")
    return best
