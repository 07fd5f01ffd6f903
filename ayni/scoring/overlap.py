"""How near an answer comes to a gold answer, in the ways the question-answering and summarisation fields count it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks (the SQuAD evaluation script, Rajpurkar et al. 2016)."""
    text = text.lower().replace("’", "'").translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """The normalised answer equals a normalised gold answer (SQuAD EM, the best over the aliases)."""
    return normalise(answer) in {normalise(gold) for gold in golds}


def contains_gold(answer: str, golds: Sequence[str]) -> bool:
    """Some gold answer stands in the answer as whole normalised words (the lenient match of open-domain QA)."""
    text = f" {normalise(answer)} "
    return any(words and f" {words} " in text for words in map(normalise, golds))


def word_f1(answer: str, gold: str) -> float:
    """SQuAD's F1: with c the normalised words in common (counted), P = c/|answer|, R = c/|gold|, 2PR/(P+R)."""
    a, b = normalise(answer).split(), normalise(gold).split()
    if not a or not b:
        return float(a == b)
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))


def rouge_l(answer: str, gold: str) -> float:
    """ROUGE-L F1 (Lin 2004): with L the longest common subsequence of words, P = L/|answer|, R = L/|gold|, 2PR/(P+R)."""
    a, b = normalise(answer).split(), normalise(gold).split()
    if not a or not b:
        return float(a == b)
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return 2 * row[-1] / (len(a) + len(b))


def char_f(answer: str, gold: str, order: int = 6, beta: float = 2.0) -> float:
    """chrF (Popović 2015): character n-gram precision and recall without blanks, averaged over n = 1..order.

    F = (1 + beta^2) P R / (beta^2 P + R). Orders longer than both texts are left out of the average.
    """
    a, b = "".join(answer.lower().split()), "".join(gold.lower().split())
    precisions, recalls = [], []
    for n in range(1, order + 1):
        grams_a = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        grams_b = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        if not grams_a and not grams_b:
            continue
        common = (grams_a & grams_b).total()
        precisions.append(common / grams_a.total() if grams_a else 0.0)
        recalls.append(common / grams_b.total() if grams_b else 0.0)
    if not precisions:
        return 1.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
