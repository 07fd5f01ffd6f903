"""Section 3.2.3: PPO on top of rejection sampling, against either alone, at the same number of sampled answers."""

from __future__ import annotations

from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference
from ayni.studies.rlhf.chain import full, scorers, start
from ayni.studies.rlhf.shown import examined, examined_bars
from ayni.studies.study import Conclusion, Outcome, Study
from ayni.studies.verdicts import judged

K, PROMPTS = 8, 640  # rejection sampling alone: 5,120 answers
BATCH, ITERATIONS = 128, 40  # PPO alone: as many; together: half of each
WORDS = {"sft": "SFT", "rejection": "rejection sampling", "ppo": "PPO", "both": "rejection sampling, then PPO"}
LOSS = 0.05  # of violations, which counts as none


def measure(lab: Lab, arm: str) -> Outcome:
    """V1's reward models throughout."""
    begin = start(lab)
    model, by = begin.sft, scorers(lab, begin)
    share = 2 if arm == "both" else 1
    if arm in ("rejection", "both"):
        model = lab.rejection(begin.data, model, begin.sft, by, **full(lab, k=K, prompts=PROMPTS // share))
    if arm in ("ppo", "both"):
        model = lab.ppo(begin.data, model, by, **full(lab, batch=BATCH, iterations=ITERATIONS // share))
    return Outcome(judged(lab.evaluate(begin.data, model), begin.data))


def conclude(outcomes: Outcomes) -> Conclusion:
    columns, rows = examined(outcomes, WORDS)
    return Conclusion(
        effects=[
            *(difference(outcomes, "utility", "both", arm, f"utility, both minus {WORDS[arm]}", "points") for arm in ("rejection", "ppo")),
            *(difference(outcomes, "violation", arm, "both", f"violations, {WORDS[arm]} minus both", above=-LOSS) for arm in ("rejection", "ppo")),
        ],
        columns=columns,
        rows=rows,
        panels=[examined_bars(outcomes, WORDS)],
    )  # fmt: skip


STUDY = Study(
    name="ppo-after-rejection",
    group="rlhf",
    claim=f"From the same number of sampled answers, rejection sampling followed by PPO is more useful than either alone, with no more violations (less than {100 * LOSS:.0f} points).",
    paper="Section 3.2.3: rejection sampling alone until V4; afterwards PPO on top of the rejection-sampled checkpoint before sampling again. Figure 11 has V5 with and without PPO; no comparison at equal cost is shown.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method=f"From the SFT model, by V1's reward models: rejection sampling with {PROMPTS} prompts x {K}; PPO with {ITERATIONS} iterations x {BATCH}; and half of the one followed by half of the other. "
    f"{PROMPTS * K:,} answers each; PPO takes more gradient steps from them.",
)
