"""Section 3.2.3: PPO's penalty on KL against reward hacking; where over-optimisation starts, and whether the guard sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ayni.artifacts import LOGS
from ayni.engine.answers import encoded_answer
from ayni.scoring.reward import load_reward_model, score_answers
from ayni.stages.ppo import SAMPLES
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, level
from ayni.studies.rlhf.chain import full, scorers, start, versions
from ayni.studies.rlhf.contrasts import Term, contrast
from ayni.studies.rlhf.shown import line
from ayni.studies.study import Conclusion, Outcome, Panel, Study
from ayni.text.sources import read_jsonl, read_prompts
from ayni.text.tokenizer import load_tokenizer

BETAS = ("0", "0.02", "0.1")
ITERATIONS, EVERY = 30, 5
LR = 1.0e-4  # twice the recipe's: to go as far as it takes
NEVER = {"patience": 1000, "max_kl": 1.0e6}  # it stops early
SEEN = {"reward": "own reward", "guard": "guard model", "utility": "examiner"}


def measure(lab: Lab, arm: str) -> Outcome:
    """PPO at one beta; at every evaluation the held-out answers by its own reward, by the guard and by the examiner."""
    begin = start(lab)
    guard = lab.reward("guard", begin.data, begin.sft, [])
    size = full(lab, iterations=ITERATIONS, eval_every=EVERY, optimizer={"lr": LR})
    rows = {row["id"]: row for row in read_prompts(begin.data / "prompts_dev.jsonl")}
    model = lab.ppo(begin.data, versions(lab, begin, 1)[0], scorers(lab, begin), beta=float(arm), samples=len(rows), **NEVER, **size)  # fmt: skip
    answers = read_jsonl(model / LOGS / SAMPLES)
    judge = lab.judge(begin.data)
    seen = {
        "reward": [answer["reward"] for answer in answers],
        "guard": guard_scores(guard, answers, lab.version.reward.row_len),
        "utility": [judge.judge(rows[answer["id"]], [answer["answer"]])[0].utility for answer in answers],
    }
    values: dict[str, dict[str, float]] = {}
    for name, figures in seen.items():
        spread = float(np.std([f for f, answer in zip(figures, answers) if answer["step"] == 0])) or 1.0
        for figure, answer in zip(figures, answers):
            values.setdefault(f"{name} {answer['step']}", {})[answer["id"]] = figure / spread
    for answer in answers:
        values.setdefault(f"kl {answer['step']}", {})[answer["id"]] = answer["kl"]
    return Outcome(values, {"steps": sorted({answer["step"] for answer in answers})})


def guard_scores(guard: Path, answers: list[dict[str, Any]], row_len: int) -> list[float]:
    """Raw scores by a model that nothing was tuned by; `answers`: rows of PPO's samples."""
    tokenizer = load_tokenizer(guard)
    texts = [encoded_answer(tokenizer, row["messages"], row["answer"], row["ended"]) for row in answers]
    scores: list[float] = score_answers(load_reward_model(guard), texts, row_len).tolist()
    return scores


def conclude(outcomes: Outcomes) -> Conclusion:
    steps = outcomes.by["0"][outcomes.seeds[0]].facts["steps"]
    last = steps[-1]

    def more(beta: str, name: str, than: str) -> list[Term]:
        """How much more one judge gains than another, from the first evaluation to the last."""
        return [(1, f"{name} {last}", beta), (-1, f"{name} 0", beta), (-1, f"{than} {last}", beta), (1, f"{than} 0", beta)]  # fmt: skip

    def less(terms: list[Term]) -> list[Term]:
        return [(-weight, metric, arm) for weight, metric, arm in terms]

    unit, own = "standard deviations", SEEN["reward"]
    kls = {beta: [level(outcomes, f"kl {step}", beta).value or 0.0 for step in steps] for beta in BETAS}
    curves = {
        (beta, name): [level(outcomes, f"{name} {step}", beta) for step in steps] for beta in BETAS for name in SEEN
    }
    rows = [
        [beta, step, f"{kls[beta][i]:.2f}", *(curves[beta, name][i].cell() for name in SEEN)]
        for beta in BETAS
        for i, step in enumerate(steps)
    ]
    return Conclusion(
        effects=[
            contrast(outcomes, more("0", "reward", "utility"), f"gain without a penalty: {own} minus examiner", unit),
            contrast(outcomes, more("0", "reward", "guard"), f"gain without a penalty: {own} minus guard", unit),
            contrast(outcomes, [*more("0", "reward", "utility"), *less(more("0.1", "reward", "utility"))], f"{own} minus examiner: beta 0 minus beta 0.1", unit),
        ],
        columns=["beta", "iteration", "KL, nats", *(f"{said}, standard deviations" for said in SEEN.values())],
        rows=rows,
        panels=[Panel(said, "KL from the start, nats an answer", unit, [line(f"beta {beta}", kls[beta], curves[beta, name]) for beta in BETAS]) for name, said in SEEN.items()],
        remarks=[_highest(beta, kls[beta], {said: [e.value or 0.0 for e in curves[beta, name]] for name, said in SEEN.items()}) for beta in BETAS],
    )  # fmt: skip


def _highest(beta: str, kl_S: list[float], curves: dict[str, list[float]]) -> str:
    """Where each judge's mean over seeds stands highest: past the examiner's, the reward is over-optimised."""
    told = ", ".join(f"{said} at KL {kl_S[int(np.argmax(of))]:.2f}" for said, of in curves.items())
    return f"Highest at beta {beta}: {told} (the last evaluation: {kl_S[-1]:.2f})."


STUDY = Study(
    name="kl",
    group="rlhf",
    claim="Without a penalty on KL, PPO gains reward that neither the examiner nor a guard model confirms, and a penalty narrows the gap.",
    paper="Section 3.2.3: the KL term is for stability and against reward hacking (high scores of the reward model, low ones of people); beta 0.01 for 7B and 13B, 0.005 for 34B and 70B. "
    "Section 3.4.1 keeps a reward model trained on open data as a guard against drift. No curve is shown.",
    arms=BETAS,
    measure=measure,
    conclude=conclude,
    method="PPO on top of V1 by V1's gated reward at twice the recipe's learning rate, without early stop; every five iterations one answer to each held-out prompt of the development set. "
    "Every judge in standard deviations of its own scores before PPO, so that gains compare. The guard saw open preferences alone.",
)
