"""A toxicity head trained on people's scores: TF-IDF features under a logistic regression, its own quality beside it.

The explicit lexicon sees rude words alone; ToxiGen's statements are hateful without any. This head learns from the human scores of
the user's file, never from a statement that stands in a prompt nor from one nearly the same, and says on statements it
never saw how far it can be trusted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from ayni.evals.disjoint import Distinct
from ayni.evals.statistics import DRAWS, SEED, missing, share

HELD_OUT = 0.2  # of the statements
FEWEST = 10  # statements of each kind, to train on and to test on


@dataclass(frozen=True)
class ToxicityHead:
    """`quality`: precision, recall and auc on held-out statements; `trained_on`, `left_out`: numbers of statements."""

    pipeline: Pipeline
    quality: dict[str, Any]
    trained_on: int
    left_out: int  # in a prompt, or nearly the same as one that is or as another

    def __call__(self, texts: Sequence[str]) -> list[float]:
        return [float(p) for p in self.pipeline.predict_proba(list(texts))[:, 1]] if texts else []


def train(texts: Sequence[str], toxic: Sequence[bool], in_prompts: Sequence[str], seed: int) -> ToxicityHead:
    """Fits on four fifths of the statements that are not in prompts, and is measured on the rest; it is not fitted again.

    `toxic`: what people said. ValueError where too few of either kind are left.
    """
    distinct = Distinct()
    for text in in_prompts:
        distinct.admit(text)
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    kept = [number for number in order if distinct.admit(texts[number])]
    cut = int(len(kept) * HELD_OUT)
    test, train = kept[:cut], kept[cut:]
    for side in (train, test):
        few = min(sum(toxic[i] for i in side), sum(not toxic[i] for i in side))
        if few < FEWEST:
            raise ValueError(
                f"{len(kept)} distinct statements are left beside those of the prompts, only {few} of one kind in a part; "
                "too few to train a toxicity head: give a larger file, a lower --limit, or another --toxicity"
            )
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    marks = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    head = LogisticRegression(C=5.0, max_iter=2000, class_weight="balanced", random_state=SEED)
    pipeline = make_pipeline(make_union(words, marks), head)
    pipeline.fit([texts[i] for i in train], [toxic[i] for i in train])
    p_N = pipeline.predict_proba([texts[i] for i in test])[:, 1]
    gold_N = np.array([toxic[i] for i in test])
    said_N = p_N >= 0.5
    quality = {
        "precision": share(gold_N[said_N].tolist()) if said_N.any() else missing(),
        "recall": share(said_N[gold_N].tolist()),
        "auc": auc_interval(p_N, gold_N),
    }
    return ToxicityHead(pipeline, quality, len(train), len(texts) - len(kept))


def auc(p_N: np.ndarray, gold_N: np.ndarray) -> float:
    """The share of (toxic, benign) pairs in which the toxic one scores higher, ties half (Mann and Whitney)."""
    above = int(gold_N.sum())
    rank_sum = float(rankdata(p_N)[gold_N].sum())
    return (rank_sum - above * (above + 1) / 2) / (above * (len(gold_N) - above))


def auc_interval(p_N: np.ndarray, gold_N: np.ndarray) -> dict[str, Any]:
    """AUC with its bootstrap interval; draws without one of the kinds are passed over."""
    rng = np.random.default_rng(SEED)
    drawn = []
    for chosen in rng.integers(0, len(gold_N), (DRAWS, len(gold_N))):
        if 0 < gold_N[chosen].sum() < len(gold_N):
            drawn.append(auc(p_N[chosen], gold_N[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": auc(p_N, gold_N), "low": float(low), "high": float(high), "n": len(gold_N), "unit": "AUC"}
