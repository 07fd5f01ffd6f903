"""Not in the paper, but what every user asks: PPO with reward models, or direct preference optimisation, on the same preferences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.config import DPOSettings
from ayni.stages import dpo
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference
from ayni.studies.rlhf.chain import gathered, scorers, start
from ayni.studies.rlhf.shown import examined, examined_bars
from ayni.studies.study import Conclusion, Outcome, Study
from ayni.studies.verdicts import judged
from ayni.text.sources import read_preferences

EPOCHS = {"dpo": 4, "dpo-once": 1}  # four: about the compute of reward models and PPO, see passes()
WORDS = {"sft": "SFT", "ppo": "two reward models and PPO", "dpo": "DPO, as much compute", "dpo-once": "DPO, one epoch"}
LOSS = 0.05  # of violations, which counts as none


def measure(lab: Lab, arm: str) -> Outcome:
    """From the same SFT model on the same preferences, with the same learning rate."""
    begin = start(lab)
    rounds = gathered(lab, begin)
    model = begin.sft
    if arm == "ppo":
        model = lab.ppo(begin.data, begin.sft, scorers(lab, begin))
    elif arm in EPOCHS:
        model = by_dpo(lab, begin.sft, rounds, EPOCHS[arm])
    pairs = len(read_preferences(rounds[0] / "train.jsonl"))
    return Outcome(judged(lab.evaluate(begin.data, model), begin.data), {"passes": passes(lab, arm, pairs)})


def by_dpo(lab: Lab, sft: Path, rounds: list[Path], epochs: int) -> Path:
    reward, policy = lab.version.reward, lab.version.ppo
    assert policy is not None
    optimizer: dict[str, Any] = {"lr": policy.optimizer.lr, "warmup_steps": reward.optimizer.warmup_steps}
    settings = DPOSettings.model_validate({
        "epochs": epochs, "batch_pairs": reward.batch_pairs, "row_len": reward.row_len, "optimizer": optimizer
    })  # fmt: skip
    return lab.make("dpo", dpo.run, settings, sft, rounds)


def passes(lab: Lab, arm: str, pairs: int) -> int:
    """Forward passes over an answer and its prompt, a backward pass counted as two.

    DPO: policy 3 an epoch and reference 1, of both answers. Reward models: at most 3 of both answers of every pair, twice,
    and the likelihood term's 1. PPO, an answer: sampled 1, scored 3, policy, reference and critic 3, trained on 3 + 3.
    """
    if arm in EPOCHS:
        return 2 * pairs * (3 * EPOCHS[arm] + 1)
    settings = lab.version.ppo
    assert settings is not None
    return 2 * pairs * (3 + 3 + 1) + settings.iterations * settings.batch * 13 if arm == "ppo" else 0


def conclude(outcomes: Outcomes) -> Conclusion:
    columns, rows = examined(outcomes, WORDS)
    for arm, row in zip(WORDS, rows):
        row.append(outcomes.by[arm][outcomes.seeds[0]].facts["passes"])
    return Conclusion(
        effects=[
            difference(outcomes, "utility", "ppo", "dpo", "utility, PPO minus DPO of as much compute", "points"),
            difference(outcomes, "utility", "ppo", "dpo-once", "utility, PPO minus DPO of one epoch", "points"),
            difference(outcomes, "violation", "dpo", "ppo", "violations, DPO of as much compute minus PPO", above=-LOSS),
        ],
        columns=[*columns, "passes, first seed"],
        rows=rows,
        panels=[examined_bars(outcomes, WORDS)],
        remarks=["Passes: forward passes over an answer and its prompt, a backward pass counted as two. Sampling is dearer than its passes say, since tokens come one after the other."],
    )  # fmt: skip


STUDY = Study(
    name="ppo-or-dpo",
    group="rlhf",
    claim=f"From the same preferences and as much compute, PPO with two reward models is more useful than DPO, with no more violations (less than {100 * LOSS:.0f} points).",
    paper="Not in the paper, which came out weeks after DPO (Rafailov et al. 2023) and has PPO and rejection sampling only; the claim is ours.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="From the same SFT model: V1's two reward models and PPO by them, or DPO (beta 0.1) on the pairs that those were trained on, for about as many passes over answers and for the usual one epoch.",
)
