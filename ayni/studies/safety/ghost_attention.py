"""Table 30 and figure 10: does an instruction of the first turn hold to the twentieth, and where does the model look?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.artifacts import read_json
from ayni.config import GhostEvaluation, GhostSettings, OptimizerSettings
from ayni.stages import ghost, ghost_turns
from ayni.stages.ghost_turns import AFTER, BEFORE, GROUPS, PAPER, REPEATED
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.rlhf.shown import line
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.text.sources import read_jsonl

RULE_ROWS = 2000  # demonstrations of one exchange that keep a rule
SHOWN = (2, 4, 6, 10, 15, 20)
HEADLINE = 6  # the turn at which the gap is measured
SETTINGS = GhostSettings(
    bank=["words"],
    tasks=["fact"],
    dialogues=600,
    max_turns=20,
    history=1,
    tries=3,
    combined=0.0,  # a model of this size does not keep two rules at once
    temperature=0.7,
    max_new_tokens=24,
    batch_rows=4,
    epochs=4,
    optimizer=OptimizerSettings(lr=1e-3, warmup_steps=10),
    evaluate=GhostEvaluation(dialogues=40, max_new_tokens=24),
)
SMALL: dict[str, Any] = {"check": False, "dialogues": 24, "max_turns": 3, "tries": 4, "max_new_tokens": 16,
                         "row_len": 256, "epochs": 1, "evaluate": {"dialogues": 3, "turns": HEADLINE, "max_new_tokens": 12, "pictured": 2}}  # fmt: skip


def measure(lab: Lab, arm: str) -> Outcome:
    """The obedient model, Ghost Attention on top of it, and both asked turn by turn."""
    data = lab.data()
    begin = obedient(lab, data)
    settings = GhostSettings(**{**SETTINGS.model_dump(), **SMALL}) if lab.smoke else SETTINGS
    tuned = lab.make("ghost", ghost.run, settings, data, begin)
    asked = lab.make("ghost-turns", ghost_turns.run, settings, data, begin, tuned)
    values: dict[str, dict[str, float]] = {}
    for row in read_jsonl(asked / ghost_turns.DIALOGUES):
        for turn, kept in enumerate(row["kept"], start=1):
            values.setdefault(metric(row["arm"], row["group"], turn), {})[row["id"]] = float(kept)
    attention = read_json(asked / ghost_turns.ATTENTION)
    for name, of in attention["arms"].items():
        for turn, on in zip(attention["turns"], of["strongest"]):
            if on is not None:
                values[f"attention {name} {turn}"] = {"all": on}
    return Outcome(values, {"turns": settings.evaluate.turns, "sampled": read_json(tuned / ghost.SUMMARY)})


def obedient(lab: Lab, data: Path) -> Path:
    """SFT from the shared base with more demonstrations of rules: a model that follows an instruction at once.

    The shared SFT model has met so few that it never names the right word; and nobody forgets what he never knew.
    """
    with_rules = lab.data(rule_rows=60 if lab.smoke else RULE_ROWS)
    how: dict[str, Any] = {} if lab.smoke else {"epochs": 3, "optimizer": {"lr": 1e-3}}
    return lab.sft(data, lab.base(data), with_rules / "sft.jsonl", **how)


def metric(arm: str, group: str, turn: int) -> str:
    return f"{arm}, {group}, turn {turn}"


def conclude(outcomes: Outcomes) -> Conclusion:
    (arm,) = outcomes.by
    facts = [outcomes.by[arm][seed].facts for seed in outcomes.seeds]
    last = facts[0]["turns"]
    turns = list(range(1, last + 1))
    shown = [turn for turn in SHOWN if turn <= last]
    at = {
        (model, group, turn): level(outcomes, metric(model, group, turn), arm)
        for model in (BEFORE, REPEATED, AFTER)
        for group in GROUPS
        for turn in turns
    }

    def gap(group: str, turn: int, above: float) -> Any:
        words = f"{group} constraints kept at turn {turn}, after minus before"
        return difference(outcomes, metric(AFTER, group, turn), arm, arm, words, above=above, metric_against=metric(BEFORE, group, turn))  # fmt: skip

    looked = {name: [level(outcomes, f"attention {name} {turn}", arm) for turn in turns] for name in (BEFORE, AFTER)}
    rows = [
        [f"{model}, {group}", *(at[model, group, turn].cell(100, 0) for turn in shown)]
        for model in (BEFORE, REPEATED, AFTER)
        for group in GROUPS
    ]
    rows += [
        [f"{model}, Table 30", *(f"{100 * points[turn]:.0f}" if turn in points else "–" for turn in shown)]
        for model, points in PAPER.items()
    ]
    return Conclusion(
        effects=[gap("trained", HEADLINE, 0.5), gap("never trained", HEADLINE, 0.5), gap("trained", last, 0.0)],
        columns=["% kept", *(f"turn {turn}" for turn in shown)],
        rows=rows,
        panels=[
            *(
                Panel(f"{group} constraints", "turn", "share that keeps it", [
                    *(line(model, turns, [at[model, group, turn] for turn in turns]) for model in (BEFORE, REPEATED, AFTER)),
                    *(Series(f"{model}, Table 30", list(points), list(points.values()), paper=True) for model, points in PAPER.items() if group == "trained"),
                ])
                for group in GROUPS
            ),
            Panel("attention to the instruction", "turn", "share of the strongest head's", [line(name, turns, of) for name, of in looked.items()]),
        ],
        remarks=[
            "Trained on, by seed: "
            + "; ".join(f"{f['sampled']['dialogues']} of {f['sampled']['sampled']} dialogues, {f['sampled']['mean_turns']:.1f} turns each" for f in facts)
            + ".",
        ],
    )  # fmt: skip


STUDY = Study(
    name="ghost-attention",
    group="safety",
    claim="After Ghost Attention an instruction of the first turn is kept at turn 6 by at least 50 percentage points more of the dialogues, for constraints that were never trained too.",
    paper="Table 30: kept by the baseline in 100% of the dialogues at 2 turns, 10% at 4, 0% at 6 and at 20; with Ghost Attention 100% throughout. Figure 10: attention to the system message stays high for longer. The paper finds that it also holds for constraints never trained.",
    arms=("ghost",),
    measure=measure,
    conclude=conclude,
    method="SFT with 2,000 more demonstrations that keep a rule of the system message (a word at the start, at the end, or as a form of address) in the one exchange that they are; on top of it Ghost Attention on dialogues of 2 to 20 turns. Ten words and eight titles in three kinds of rules, of which a third is never trained by Ghost Attention (the demonstrations know all). Both models carry the same dialogues on alone, asked about people that fine-tuning never saw among others; `before, in every turn` repeats the instruction before every turn. Shortened wordings are known to the model after alone. Attention is that of the head that looks most at the instruction, over the dialogues of the model after.",
)
