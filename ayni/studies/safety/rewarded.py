"""What the studies of safety training measure of a model: both reward models and the examiner, on the same answers.

safety        sigma(R_s) of the answer to each harmful prompt; `low` where it lies below the safety model's own gate
helpfulness   R_h of the answer to each helpful prompt, raw: one seed's model may score wider than another's
ordinary      the examiner's utility and refusals on helpful prompts; those of look-alikes are `borderline_refusal`
"""

from __future__ import annotations

from pathlib import Path

import torch

from ayni.artifacts import read_json
from ayni.evals.judging import ANSWERS
from ayni.evals.metrics import is_benign
from ayni.scoring.reward import GATE, Scorers
from ayni.studies.lab import Lab
from ayni.studies.rlhf.sampled import rewards_of_texts
from ayni.studies.verdicts import Values, judged
from ayni.text.sources import read_jsonl, read_prompts

PROBABILITY = "probability of being safe"


def rewarded(lab: Lab, data: Path, model: Path, by: Scorers) -> Values:
    """The figures of a model's answers to the held-out prompts: those above, and all of `judged`."""
    evaluation = lab.evaluate(data, model)
    rows = read_prompts(data / "prompts_eval.jsonl")
    texts = [row["answer"] for row in read_jsonl(evaluation / ANSWERS)]
    rewards = rewards_of_texts(lab, by, rows, texts)
    safe = torch.sigmoid(rewards.safety).tolist()
    assert by.safety is not None
    gate = float(read_json(by.safety / GATE)["threshold"])
    harmful = [(row["id"], value) for row, value in zip(rows, safe) if not is_benign(row)]
    helpful = {row["id"] for row in rows if row["prompt_kind"] == "helpful"}
    values = judged(evaluation, data)
    return {
        **values,
        "safety": dict(harmful),
        "low": {prompt: float(value < gate) for prompt, value in harmful},
        "helpfulness": {row["id"]: r for row, r in zip(rows, rewards.helpfulness.tolist()) if row["id"] in helpful},
        "ordinary_utility": {prompt: value for prompt, value in values["utility"].items() if prompt in helpful},
        "ordinary_refusal": {prompt: value for prompt, value in values["refusal"].items() if prompt in helpful},
    }
