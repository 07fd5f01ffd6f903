"""What the studies of reward models share: a seed's preferences, models trained on them, and scores of held-out pairs.

A prompt is the unit of evidence. It is drawn about three times, each time with two fresh answers; its pairs are not
independent of each other, so they are averaged, or, for figures that are no mean, drawn together.

The reward models are the paper's: without our likelihood term, which a claim about the ranking loss must not lean on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ayni.evals.reward_models import Ranked, Row, Scoring
from ayni.feedback.mix import Kind
from ayni.scoring.reward import load_reward_model
from ayni.studies.lab import Lab
from ayni.studies.paired import statistic
from ayni.studies.study import Effect, Series
from ayni.text.sources import read_preferences
from ayni.text.tokenizer import load_tokenizer

# More than the recipe's, and more of them held out: arms differ by a point or two, which takes hundreds of prompts.
PAIRS, HELD_OUT = 6000, 0.3

Values = dict[str, dict[str, float]]
Blocks = Mapping[str, Sequence[Sequence[float]]]  # prompt -> one row of figures for each of its pairs or answers


def start(lab: Lab) -> tuple[Path, Path, Path]:
    """(data, SFT model, preferences) of a seed."""
    data = lab.data()
    base = lab.base(data)
    more: dict[str, Any] = {} if lab.smoke else {"pairs": PAIRS, "held_out": HELD_OUT}
    return data, lab.sft(data, base), lab.preferences(data, lab.variants(data, base), **more)


def reward_model(lab: Lab, kind: Kind, model: Path | None = None, **updates: object) -> Path:
    """A reward model on the seed's preferences, started from its SFT model or from `model`."""
    data, sft, gathered = start(lab)
    return lab.reward(kind, data, model or sft, [gathered], likelihood=False, **updates)


def training_pairs(lab: Lab, domain: str) -> int:
    """How many pairs of a domain ("helpful", "safety") are there to train on."""
    return sum(row["prompt_kind"] == domain for row in read_preferences(start(lab)[2] / "train.jsonl"))


def scoring(lab: Lab, model: Path) -> Scoring:
    return Scoring(load_reward_model(model), load_tokenizer(model), lab.version.reward.row_len)


def ranked(lab: Lab, model: Path, domain: str | None = None) -> list[Ranked]:
    """The held-out pairs, of one domain or of both, with the model's raw scores."""
    rows = read_preferences(start(lab)[2] / "held_out.jsonl")
    return scoring(lab, model).rank([row for row in rows if domain in (None, row["prompt_kind"])])


def prompt_of(row: Row) -> str:
    """The prompt behind a pair; the part after # counts how often it was drawn."""
    return str(row["id"]).split("#", maxsplit=1)[0]


def by_prompt(noted: Iterable[tuple[str, str, float]]) -> Values:
    """metric -> {prompt: mean} of (metric, prompt, value)."""
    lists: dict[str, dict[str, list[float]]] = {}
    for metric, prompt, value in noted:
        lists.setdefault(metric, {}).setdefault(prompt, []).append(float(value))
    return {metric: {prompt: float(np.mean(given)) for prompt, given in of.items()} for metric, of in lists.items()}


def blocked(noted: Iterable[tuple[str, Sequence[float]]]) -> dict[str, list[list[float]]]:
    """The rows of figures of each prompt, as JSON holds them."""
    blocks: dict[str, list[list[float]]] = {}
    for prompt, figures in noted:
        blocks.setdefault(prompt, []).append([round(float(figure), 5) for figure in figures])
    return blocks


def padded(blocks: Sequence[Blocks]) -> list[np.ndarray]:
    """[P, M, F] of each seed that has any: P prompts of up to M rows of F figures, NaN where a prompt has fewer.

    What `statistic` draws from: its units are prompts.
    """
    arrays = []
    for rows_by_prompt in filter(None, blocks):
        rows = list(rows_by_prompt.values())
        block_PMF = np.full((len(rows), max(map(len, rows)), len(rows[0][0])), np.nan)
        for p, figures in enumerate(rows):
            block_PMF[p, : len(figures)] = figures
        arrays.append(block_PMF)
    return arrays


def rows_of(block_PMF: np.ndarray) -> np.ndarray:
    """[N, F]: all rows of the prompts drawn, without the padding."""
    rows_NF = block_PMF.reshape(-1, block_PMF.shape[-1])
    return rows_NF[~np.isnan(rows_NF[:, 0])]


def of_rows(
    blocks: Sequence[Blocks], of: Callable[[np.ndarray], float], name: str, unit: str, above: float = 0.0
) -> Effect:
    """A statistic of all rows [N, F] of a seed, averaged over seeds; the interval draws seeds, and prompts inside each."""
    return statistic(padded(blocks), lambda block_PMF: of(rows_of(block_PMF)), name, unit, above)


def curve(name: str, x: Sequence[float | str], levels: Sequence[Effect]) -> Series:
    """A line, or a group of bars, with its intervals."""
    return Series(name, x, [e.value for e in levels], [e.low for e in levels], [e.high for e in levels])
