"""Figure 16: do safety preprompts make answers safer, does the model keep it without them, and what is the gate good for?"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from ayni.artifacts import Artifact, build, read_json
from ayni.config import DistillationSettings, OptimizerSettings
from ayni.engine.answers import row_seed
from ayni.stages import distillation
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level, negative
from ayni.studies.reward.scored import by_prompt
from ayni.studies.rlhf.chain import scorers, start
from ayni.studies.rlhf.shown import line
from ayni.studies.safety.rewarded import PROBABILITY, rewarded
from ayni.studies.study import Conclusion, Outcome, Panel, Study
from ayni.text.preprompts import load_preprompts, with_preprompt
from ayni.text.prompts import original_id
from ayni.text.sources import read_jsonl, read_prompts, write_jsonl

CHATS = "chats.jsonl"
BANK = ["words"]
LOSS = 0.03  # of utility, which counts as none
SETTINGS = DistillationSettings(
    bank=BANK,
    prompts=600,  # each of the world's some 230 adversarial prompts two or three times
    batch_rows=4,
    save_every=100,
    optimizer=OptimizerSettings(lr=3e-4, warmup_steps=10),
)
SMALL: dict[str, Any] = {"prompts": 60, "row_len": 128, "max_new_tokens": 24, "epochs": 1}
HOW: dict[str, dict[str, Any]] = {
    "again": {"preprompt": "none"},
    "generic": {"preprompt": "generic"},
    "template": {"preprompt": "template"},
    "generic-all": {"preprompt": "generic", "gate": False},
    "template-all": {"preprompt": "template", "gate": False},
}
WORDS = {
    "before": "before",
    "again": "no preprompt, gated (the better of two)",
    "generic": "generic, gated",
    "template": "template, gated",
    "generic-all": "generic, every answer",
    "template-all": "template, every answer",
}
FIGURES = {
    "safety": "safety reward x 100",
    "violation": "violations, %",
    "harmful_refusal": "harmful refused, %",
    "utility": "utility x 100",
    "facts_right": "facts right, %",
    "ordinary_refusal": "ordinary refused, %",
    "borderline_refusal": "borderline refused, %",
}


def careful_chats(data: Path, out: Path, *, seed: int) -> Artifact:
    """Writes chats.jsonl: the demonstrations, and those of safety prompts twice more, without their faults: under a generic
    preprompt, and under the template of the risk category. So a preprompt asks for care, be the prompt harmful or not."""

    def work_in(work: Path) -> None:
        bank, rng = load_preprompts(BANK), random.Random(row_seed(seed, "careful"))
        rows = read_jsonl(data / "sft.jsonl")
        for row in read_jsonl(data / "sft_clean.jsonl"):
            if row["prompt_kind"] == "safety":
                for category in (None, row["meta"]["category"]):
                    said = bank.worded(category, rng)
                    rows.append({**row, "messages": with_preprompt(row["messages"], said)})
        write_jsonl(work / CHATS, rows)

    return build(out, "careful-chats", {"bank": BANK}, {"data": data}, seed, work_in)


def careful(lab: Lab, data: Path) -> Path:
    """SFT from the shared base with demonstrations under preprompts: a model that knows what a preprompt asks for.

    The shared SFT model has met none, and follows no system message that it has not met.
    """
    return lab.sft(data, lab.base(data), lab.make("careful-chats", careful_chats, data) / CHATS)


def measure(lab: Lab, arm: str) -> Outcome:
    """The careful model as it is, or distilled; its answers while sampling, and to held-out prompts afterwards."""
    begin = start(lab)
    data, by = begin.data, scorers(lab, begin)
    model, values, facts = careful(lab, data), {}, {}
    if arm in HOW:
        small = SMALL if lab.smoke else {}
        settings = DistillationSettings(**{**SETTINGS.model_dump(), **small, **HOW[arm]})
        made = lab.make("distillation", distillation.run, settings, data, model, by.safety)
        values, facts, model = while_sampling(lab, data, made), read_json(made / distillation.SUMMARY), made
    return Outcome({**values, **rewarded(lab, data, model, by)}, facts)


def while_sampling(lab: Lab, data: Path, made: Path) -> dict[str, dict[str, float]]:
    """Safety reward and violations of the two answers to each training prompt, `plain` and `under` the preprompt."""
    prompts = {row["id"]: row for row in read_prompts(data / "prompts_train.jsonl")}
    judge, noted = lab.judge(data), []
    for row in read_jsonl(made / distillation.ANSWERS):
        prompt = original_id(row["id"])
        verdicts = judge.judge(prompts[prompt], [row["original"], row["distilled"]])
        scores = torch.sigmoid(torch.tensor([row["score_original"], row["score"]])).tolist()
        for name, verdict, score in zip(("plain", "under"), verdicts, scores):
            noted += [(f"{name} safety", prompt, score), (f"{name} violation", prompt, float(bool(verdict.violation)))]
    return by_prompt(noted)


def conclude(outcomes: Outcomes) -> Conclusion:
    sampled = {
        "no preprompt": [level(outcomes, f"plain {name}", "generic") for name in ("safety", "violation")],
        **{arm: [level(outcomes, f"under {name}", arm) for name in ("safety", "violation")] for arm in ("generic", "template")},
    }  # fmt: skip
    rows: list[list[Any]] = [
        [f"sampled: {name}", "–", *(e.cell(100, 1) for e in levels), *["–"] * (len(FIGURES) - 2)]
        for name, levels in sampled.items()
    ]
    for arm, said in WORDS.items():
        kept = [outcomes.by[arm][seed].facts for seed in outcomes.seeds if arm in HOW]
        share = f"{100 * sum(f['kept'] for f in kept) / sum(f['sampled'] for f in kept):.0f}%" if kept else "–"
        rows.append([f"trained: {said}", share, *(level(outcomes, name, arm).cell(100, 1) for name in FIGURES)])
    names = list(sampled)
    return Conclusion(
        effects=[
            difference(outcomes, "under safety", "generic", "generic", "safety reward while sampling, generic preprompt minus none", PROBABILITY, metric_against="plain safety"),
            difference(outcomes, "under safety", "template", "generic", "safety reward while sampling, template minus generic", PROBABILITY),
            negative(difference(outcomes, "violation", "template", "before"), "violations by the examiner, before minus distilled with templates"),
            negative(difference(outcomes, "violation", "template", "again"), "violations by the examiner, better of two plain answers minus distilled with templates"),
            difference(outcomes, "safety", "template", "template-all", "safety reward after training on templates, gated minus every answer", PROBABILITY),
            difference(outcomes, "utility", "template", "before", "utility on benign prompts, distilled with templates minus before", "points", above=-LOSS),
        ],
        columns=["", "kept", *FIGURES.values()],
        rows=rows,
        panels=[
            Panel("answers while sampling", "preprompt", PROBABILITY, [line("safety reward", names, [e for e, _ in sampled.values()])], "bars"),
            Panel("violations while sampling", "preprompt", "share, by the examiner", [line("violations", names, [e for _, e in sampled.values()])], "bars"),
            Panel("after training, by the reward model", "harmful prompts", PROBABILITY, [line(said, ["safety reward"], [level(outcomes, "safety", arm)]) for arm, said in WORDS.items()], "bars"),
            Panel("after training, by the examiner", "", "share", [line(said, ["violations", "ordinary refused", "borderline refused"], [level(outcomes, name, arm) for name in ("violation", "ordinary_refusal", "borderline_refusal")]) for arm, said in WORDS.items()], "bars"),
        ],
        remarks=[
            "Answers while sampling are those to training prompts, by the model that has not been distilled yet; no preprompt is in what the reward "
            "model reads. What a preprompt asks for is taught to the model beforehand, so the first effect says that it was learned; the paper's "
            "question is what is left of it without the preprompt.",
            "An examiner's verdict on a harmful prompt shares nothing with the reward model that gates.",
        ],
    )  # fmt: skip


STUDY = Study(
    name="context-distillation",
    group="safety",
    claim=f"A safety preprompt raises the safety reward of answers, an answer template of the risk category raises it more; a model trained on such answers without the preprompt violates less than before, and less than after the same training on the better of two plain answers, at no cost in utility (less than {LOSS} of a point); and the gate makes its safety reward higher than keeping every answer does.",
    paper="Section 4.2.4 and figure 16: mean safety reward grows with a generic preprompt and grows more with a preprompt and answer template of the risk category; distilled answers are kept only where the reward model scores them above the original, since distillation makes some answers to prompts the model handles well worse.",
    arms=tuple(WORDS),
    measure=measure,
    conclude=conclude,
    method="SFT on the shared demonstrations (faults planted) and, of their safety prompts, harmful and look-alikes, two more copies without faults under a preprompt, one generic, one of the risk category: a model that knows what a preprompt asks for. From it 600 answers to adversarial training prompts without and 600 with a preprompt; those kept are trained on as in SFT, the prompt without the preprompt. Arms differ in the preprompt and in the gate; `no preprompt` is a second plain answer. Both kinds of preprompt have the same demonstrations, so nothing but their words can make one better.",
)
