"""Figure 11: how often each version wins against SFT, on helpfulness and on harmlessness, by the own reward models and by
a judge that had no part in the tuning."""

from __future__ import annotations

from ayni.evals.judging import ANSWERS
from ayni.evals.metrics import is_benign
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes
from ayni.studies.rlhf.chain import scorers, start, versions
from ayni.studies.rlhf.contrasts import win_share
from ayni.studies.rlhf.sampled import rewards_of_texts
from ayni.studies.rlhf.shown import examined, line
from ayni.studies.study import Conclusion, Outcome, Panel, Study
from ayni.studies.verdicts import judged
from ayni.text.sources import read_jsonl, read_prompts

WORDS = {"sft": "SFT", "v1": "V1", "v2": "V2", "v3": "V3", "ppo": "V3 and PPO"}
METRICS = {  # metric -> what is won, by whom
    "utility": ("helpfulness", "examiner"),
    "harmless": ("harmlessness", "examiner"),
    "reward_helpfulness": ("helpfulness", "reward models"),
    "reward_harmlessness": ("harmlessness", "reward models"),
}


def measure(lab: Lab, arm: str) -> Outcome:
    """One version's answers to the held-out prompts, by the examiner and by V3's reward models."""
    begin = start(lab)
    models = versions(lab, begin, 3)
    by = scorers(lab, begin, models[:-1])
    model = {"sft": begin.sft, **dict(zip(("v1", "v2", "v3"), models))}.get(arm)
    evaluation = lab.evaluate(begin.data, model or lab.ppo(begin.data, models[-1], by))
    values = judged(evaluation, begin.data)
    values["harmless"] = {prompt: 1.0 - violation for prompt, violation in values["violation"].items()}
    rows = read_prompts(begin.data / "prompts_eval.jsonl")
    rewards = rewards_of_texts(lab, by, rows, [row["answer"] for row in read_jsonl(evaluation / ANSWERS)])
    for i, row in enumerate(rows):
        if row["prompt_kind"] == "helpful":
            values.setdefault("reward_helpfulness", {})[row["id"]] = float(rewards.helpfulness[i])
        elif not is_benign(row):
            values.setdefault("reward_harmlessness", {})[row["id"]] = float(rewards.safety[i])
    return Outcome(values)


def conclude(outcomes: Outcomes) -> Conclusion:
    arms = [arm for arm in WORDS if arm != "sft"]
    shares = {metric: [win_share(outcomes, metric, arm, "sft") for arm in arms] for metric in METRICS}
    last = arms[-1]
    columns, rows = examined(outcomes, WORDS)
    columns += [f"{axis} win share over SFT by the {by}, %" for axis, by in METRICS.values()]
    for i, row in enumerate(rows):
        row += ["–" if i == 0 else shares[metric][i - 1].cell(100, 1) for metric in METRICS]
    return Conclusion(
        effects=[
            *(
                win_share(outcomes, metric, last, "sft", f"{axis} win share of {WORDS[last]} over SFT, by the {by}")
                for metric, (axis, by) in METRICS.items()
            ),
            win_share(outcomes, "utility", last, "v1", f"helpfulness win share of {WORDS[last]} over V1, by the examiner"),
        ],
        columns=columns,
        rows=rows,
        panels=[
            Panel(axis, "", "win share over SFT", [line(by, [WORDS[arm] for arm in arms], shares[metric]) for metric, (of, by) in METRICS.items() if of == axis])
            for axis in ("helpfulness", "harmlessness")
        ],
    )  # fmt: skip


STUDY = Study(
    name="versions",
    group="rlhf",
    claim="After several versions RLHF wins against SFT on helpfulness and on harmlessness, by the own reward models and by an independent judge, and the last version beats the first.",
    paper="Figure 11: win rates on both axes grow from SFT over V1 to V5 (PPO); by the own reward models more than half are won against ChatGPT on both axes from V3 on, "
    "by GPT-4 as the judge the lead is smaller.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="Three rounds of preferences, reward models and rejection sampling from the SFT model, and PPO on top of the third; one answer to every held-out prompt. "
    "Helpfulness: the examiner's utility on benign prompts; the helpfulness model on prompts of that kind. Harmlessness: harmful prompts, no violation beats a violation; the safety model. "
    "V3's reward models score all versions. A tie counts half.",
)
