"""Stage: the sampling temperature of a version (paper 3.2.3, figs. 7 and 8), tuned anew each time.

    T* = argmax_T  1/N sum_x  max_k R_c(y_k | x),   y_1..y_K ~ pi_latest(. | x; T)

Higher temperatures give more varied answers, hence a better best of K, until the answers fall apart; RLHF moves the best
temperature, so it is looked for at each version. The prompts are held-out ones, the same for every candidate, and so are
the random draws. Only answers that ended count, as in rejection sampling. The ground truth is not consulted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ayni import telemetry
from ayni.artifacts import Artifact, build, read_json, write_json
from ayni.config import TemperatureSettings
from ayni.engine.answers import answers_in, row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.evals.statistics import mean_interval
from ayni.model.checkpoint import load_model
from ayni.scoring.best_of import best_ended, by_k
from ayni.scoring.reward import Scorers, load_reward_models
from ayni.text.sources import read_prompts
from ayni.text.tokenizer import load_tokenizer

SWEEP = "temperature.json"


def run(
    settings: TemperatureSettings,
    prompts: Path,
    sampler: Path,
    scorers: Scorers,
    out: Path,
    *,
    max_new_tokens: int,
    row_len: int,
    seed: int,
) -> Artifact:
    """Writes temperature.json: `chosen`, `k`, `points` (a candidate and a k: max and median reward), `candidates`.

    `prompts`: a file of prompts, or a data directory with prompts_dev.jsonl (held out from all that trains). Rewards are
    the gated ones, in score space; `best` of a candidate is what the choice is made by, with its 95% interval.
    """

    def work_in(work: Path) -> None:
        rows = read_prompts(prompts / "prompts_dev.jsonl" if prompts.is_dir() else prompts)
        step = max(1, len(rows) // settings.prompts)
        rows = rows[::step][: settings.prompts]
        tokenizer, models = load_tokenizer(sampler), load_reward_models(scorers)
        scored_in = load_tokenizer(scorers.helpfulness)
        engine = Engine(load_model(sampler, "auto"), tokenizer)
        points: list[dict[str, Any]] = []
        candidates: list[dict[str, Any]] = []
        answers_of_all = len(settings.candidates) * len(rows) * settings.k
        with telemetry.progress("temperatures", answers_of_all, "answers") as bar:
            for temperature in settings.candidates:
                answers = sample_answers(
                    engine,
                    tokenizer,
                    rows,
                    n=settings.k,
                    temperature=temperature,
                    max_new_tokens=max_new_tokens,
                    seed=row_seed(seed, "temperature"),
                    bar=bar,
                )
                ended_NK = torch.tensor([[answer.ended for answer in samples] for samples in answers])
                answers = answers_in(scored_in, tokenizer, rows, answers)
                reward_NK = models.of_answers(rows, answers, row_len).gated.view(len(rows), settings.k)
                best = mean_interval(best_ended(reward_NK, ended_NK).tolist(), "score")
                points += [{"temperature": temperature, **point} for point in by_k(reward_NK)]
                candidates.append({"temperature": temperature, "best": best, "ended": ended_NK.float().mean().item()})
        best_one = max(candidates, key=lambda candidate: candidate["best"]["value"])
        sweep = {"chosen": best_one["temperature"], "k": settings.k, "points": points, "candidates": candidates}
        write_json(work / SWEEP, sweep)
        _show(sweep)

    inputs = {"prompts": prompts, "sampler": sampler, "helpfulness": scorers.helpfulness, "safety": scorers.safety}
    stage_settings = {**settings.model_dump(), "max_new_tokens": max_new_tokens, "row_len": row_len}
    return build(out, "temperature", stage_settings, inputs, seed, work_in)


def chosen(sweep: Path) -> float:
    """The temperature that a finished sweep chose."""
    return float(read_json(sweep / SWEEP)["chosen"])


def _show(sweep: dict[str, Any]) -> None:
    """A row a temperature: the maximum of each k, the median of K, and the figure that decides."""
    ks = sorted({point["k"] for point in sweep["points"]})
    at = {(point["temperature"], point["k"]): point for point in sweep["points"]}
    rows = [
        [
            f"T {temperature:g}" + (" *" if temperature == sweep["chosen"] else ""),
            *(f"{at[temperature, k]['max']:.2f}" for k in ks),
            f"{at[temperature, ks[-1]]['median']:.2f}",
            f"{candidate['best']['value']:.2f} [{candidate['best']['low']:.2f}, {candidate['best']['high']:.2f}]",
            f"{100 * candidate['ended']:.0f}%",
        ]
        for candidate in sweep["candidates"]
        for temperature in [candidate["temperature"]]
    ]
    telemetry.table(["reward", *(f"best of {k}" for k in ks), "median", "best that ended", "ended"], rows)
    telemetry.say(f"  T {sweep['chosen']:g} it is: the best of {sweep['k']} scores highest on held-out prompts")
