"""Figure 5, and the case against stopping at the compute-optimal token count for models that are served.

    training compute  C = 6 N D        N parameters, D tokens of pretraining
    serving cost      2 N operations a token

At one training compute C three sizes are trained: the best of them is the compute-optimal one, and of its ratio D / N
follows where the small model would stop. The small model trained ten times as long costs what the optimal one cost to
train, and a third to serve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ayni.config import ModelSettings
from ayni.model.checkpoint import wanted_shapes
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.pretraining.held_out_text import losses
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.studies.verdicts import judged


@dataclass(frozen=True)
class Arm:
    """`width`: over the default model's. `power`: tokens are the default's times (N / N_default)^power."""

    width: float
    power: float


ARMS = {
    "small-stopped": Arm(0.5, 1.0),  # the default's tokens per parameter
    "small-longer": Arm(0.5, 0.0),  # the default's tokens
    "small-longest": Arm(0.5, -1.0),  # the default's training compute
    "middle": Arm(1.0, 0.0),
    "large": Arm(1.5, -1.0),
}
SMALL = tuple(ARMS)[:3]
EQUAL_TRAINING = ("small-longest", "middle", "large")


def measure(lab: Lab, arm: str) -> Outcome:
    """A base model of that size on that many tokens, its held-out loss, and what it answers after SFT."""
    assert lab.recipe.pretrain is not None
    data, size = lab.data(), ARMS[arm]
    default = lab.recipe.pretrain.architecture(lab.recipe.tokenizer.vocab_size)
    changes = {"dim": round(size.width * default.dim), "ffn_dim": round(size.width * default.ffn_dim)}
    N_default, N = parameters(default), parameters(ModelSettings(**{**default.model_dump(), **changes}))
    tokens = round(lab.recipe.pretrain.tokens * (N / N_default) ** size.power)
    base = lab.base(data) if arm == "middle" else lab.base(data, model=changes, tokens=tokens)
    answered = judged(lab.evaluate(data, lab.sft(data, base)), data)
    return Outcome({**losses(base, data), **answered}, {"N": N, "D": tokens})


def parameters(settings: ModelSettings) -> int:
    """N, embeddings included (tied ones once)."""
    return sum(math.prod(shape) for shape in wanted_shapes(settings, scalar=False).values())


def conclude(outcomes: Outcomes) -> Conclusion:
    facts = {arm: outcomes.by[arm][outcomes.seeds[0]].facts for arm in ARMS}
    loss = {arm: level(outcomes, "loss", arm) for arm in ARMS}
    right = {arm: level(outcomes, "facts_right", arm) for arm in ARMS}
    best = min(EQUAL_TRAINING, key=lambda arm: loss[arm].value or math.inf)
    rows = [
        [arm, f"{f['N'] / 1e6:.2f}M", f"{f['D'] / 1e6:.2f}M", f"{f['D'] / f['N']:.1f}", f"{6e-12 * f['N'] * f['D']:.1f}", f"{2e-6 * f['N']:.2f}", loss[arm].cell(digits=4), right[arm].cell(100, 1)]
        for arm, f in facts.items()
    ]  # fmt: skip
    lines: list[tuple[str, tuple[str, ...]]] = [("small", SMALL), ("middle", ("middle",)), ("large", ("large",))]
    return Conclusion(
        effects=[
            difference(outcomes, "facts_right", SMALL[2], SMALL[0], "equal serving cost: facts right, small longest minus small stopped"),
            difference(outcomes, "loss", SMALL[1], SMALL[2], "no saturation: loss, small longer minus small longest", "nats per character"),
            difference(outcomes, "loss", SMALL[2], "middle", "equal training compute: loss, small longest minus middle", "nats per character"),
        ],
        columns=["model", "parameters", "tokens", "tokens per parameter", "training, 1e12 operations", "serving, 1e6 operations a token", "held-out loss, nats per character", "facts right, %"],
        rows=rows,
        panels=[
            Panel("training", "training compute, operations", "held-out loss, nats per character", [_line(name, [6.0 * facts[a]["N"] * facts[a]["D"] for a in arms], [loss[a] for a in arms]) for name, arms in lines], log_x=True),
            Panel("serving", "operations a served token", "facts right", [_line(name, [2.0 * facts[a]["N"] for a in arms], [right[a] for a in arms]) for name, arms in lines], log_x=True),
        ],
        remarks=[f"Of the three sizes trained with equal compute the best by held-out loss is: {best}."],
    )  # fmt: skip


def _line(name: str, x: list[float], levels: list[Any]) -> Series:
    return Series(name, x, [e.value for e in levels], [e.low for e in levels], [e.high for e in levels])


STUDY = Study(
    name="beyond-optimal",
    group="pretraining",
    claim="Past its compute-optimal token count a model keeps getting better: at equal serving cost it beats itself stopped there, though a larger model stopped at its optimum makes better use of the same training compute.",
    paper="Figure 5: the training loss of all four sizes (7B to 70B) still falls after 2T tokens, far past the compute-optimal count, and shows no saturation.",
    arms=tuple(ARMS),
    measure=measure,
    conclude=conclude,
    method="A model of half the default's width, stopped at the default's tokens per parameter, at its tokens, and at its training compute, each with a schedule of its own; the default; and one half as wide again, with equal compute.",
)  # fmt: skip
