"""Figure 6: a reward model's accuracy against the number of its preferences and the size of the model it starts from."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from ayni.model.checkpoint import load_scalar
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.reward.scored import by_prompt, curve, prompt_of, ranked, reward_model, start, training_pairs
from ayni.studies.study import Conclusion, Outcome, Panel, Study

SIZES: dict[str, dict[str, Any]] = {  # heads 32 wide, a kv head for two of them (small: one for both)
    "small": {"dim": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 176},
    "middle": {},  # the recipe's
    "large": {"dim": 192, "n_heads": 6, "n_kv_heads": 3, "ffn_dim": 528},
}
SMOKE: dict[str, dict[str, Any]] = {"small": {"dim": 16}, "middle": {}, "large": {"n_layers": 3}}
SHARES = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "all": 1.0}
EVERY = "all sizes"


def measure(lab: Lab, arm: str) -> Outcome:
    """A chat model of its own for the size; from it a helpfulness model on each share of the helpful pairs."""
    data, _, _ = start(lab)
    chat = lab.sft(data, lab.base(data, model=(SMOKE if lab.smoke else SIZES)[arm]))
    total = training_pairs(lab, "helpful")
    noted, counts = [], {}
    for name, share in SHARES.items():
        counts[name] = round(share * total)
        fewer = {} if share == 1 else {"pairs": counts[name]}
        model = reward_model(lab, "helpfulness", chat, mix="own", **fewer)
        noted += [(name, prompt_of(pair.row), float(pair.right)) for pair in ranked(lab, model, "helpful")]
    parameters = sum(weight.numel() for weight in load_scalar(model).parameters())
    return Outcome(by_prompt(noted), {"pairs": counts, "parameters": parameters})


def averaged(outcomes: Outcomes) -> Outcomes:
    """One arm whose value of each unit is the mean over all arms (which have the same units)."""
    by_seed: dict[int, Outcome] = {}
    for seed in outcomes.seeds:
        first, *others = [of_seed[seed].values for of_seed in outcomes.by.values()]
        by_seed[seed] = Outcome(
            {
                metric: {unit: fmean([value, *(arm[metric][unit] for arm in others)]) for unit, value in values.items()}
                for metric, values in first.items()
            }
        )
    return Outcomes({EVERY: by_seed})


def conclude(outcomes: Outcomes) -> Conclusion:
    every = averaged(outcomes)
    first = {arm: of_seed[outcomes.seeds[0]].facts for arm, of_seed in outcomes.by.items()}
    levels = {arm: [level(outcomes, name, arm) for name in SHARES] for arm in outcomes.by}
    names = {arm: f"{arm} ({facts['parameters'] / 1e6:.2g}M)" for arm, facts in first.items()}
    smallest, largest = next(iter(SIZES)), list(SIZES)[-1]
    pairs = first[smallest]["pairs"]
    return Conclusion(
        effects=[
            difference(every, "all", EVERY, EVERY, "accuracy with all pairs minus with an eighth, mean over sizes", metric_against="1/8"),
            difference(every, "all", EVERY, EVERY, "accuracy with all pairs minus with half, mean over sizes", metric_against="1/2"),
            difference(outcomes, "all", largest, smallest, "accuracy with all pairs, large model minus small"),
        ],
        columns=["start model", *(f"{name} ({pairs[name]} pairs)" for name in SHARES)],
        rows=[[names[arm], *(e.cell(100, 1) for e in levels[arm])] for arm in levels],
        panels=[
            Panel("ours", "preferences (helpful pairs)", "accuracy on held-out pairs", [curve(names[arm], list(pairs.values()), levels[arm]) for arm in levels], log_x=True),
        ],
        remarks=["Counts of pairs are those of the first seed; the others differ by the few pairs that could not be kept."],
    )  # fmt: skip


STUDY = Study(
    name="reward-scaling",
    group="reward",
    claim="A reward model grows more accurate with more preferences, still so from half of ours to all, and with a larger model to start from.",
    paper="Figure 6: accuracy rises batch after batch and is higher for larger models (7B, 13B, 70B); it has not levelled off with the data collected.",
    arms=tuple(SIZES),
    measure=measure,
    conclude=conclude,
    method="Models of three sizes, pretrained and fine-tuned alike; from each the helpfulness model on an eighth, a quarter, half and all of the same helpful pairs, one epoch. "
    "The answers in all pairs are the middle size's.",
)
