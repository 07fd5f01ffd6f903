"""What one answer to one question earns: the `process_results` of the tasks beside this file.

Each takes the row and lm-eval's results for it (texts, or lists of texts where a question is asked several times) and gives
{metric: points}.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ayni.evals.sandbox import pass_at_k, run_program
from ayni.scoring.overlap import exact_match, word_f1

Points = dict[str, float]
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def exact(doc: dict[str, Any], results: Sequence[str]) -> Points:
    """SQuAD's normalised exact match with any of the accepted answers (aliases)."""
    return {"exact_match": float(exact_match(results[0], doc["golds"]))}


def overlap(doc: dict[str, Any], results: Sequence[str]) -> Points:
    """F1 of the words, the best over the references."""
    return {"word_f1": max(word_f1(results[0], gold) for gold in doc["golds"])}


def number(doc: dict[str, Any], results: Sequence[str]) -> Points:
    """The answer's first number is the gold one: ASDiv's answers are a number and its unit."""
    return {"exact_match": float(same_number(first_number(results[0]), doc["golds"][0]))}


def majority(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Points:
    """maj@k: the number that most of k worked answers end with; and the share of samples that are right, one at a time."""
    ends = [last_number(text) for text in results[0]]
    gold = doc["golds"][0]
    return {
        "maj_8": float(same_number(vote(ends), gold)),
        "one_sample": sum(same_number(end, gold) for end in ends) / len(ends),
    }


def true_share(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> Points:
    """MC2: sum of p(answer) over the true answers, over that of all answers (Lin et al. 2022)."""
    log_probs = np.array([log_prob for log_prob, _ in results])
    p = np.exp(log_probs - log_probs.max())  # the ratio is the same, and nothing underflows
    return {"acc": float(p[np.array(doc["labels"]) == 1].sum() / p.sum())}


def programs(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Points:
    """pass@1 and pass@10 of a function's samples, each run with the problem's tests in the sandbox."""
    ends = f"\n{doc['test']}\ncheck({doc['entry_point']})\n"
    passed = [run_program(doc["prompt"] + answer + ends) == "passed" for answer in results[0]]
    n, c = len(passed), sum(passed)
    return {"pass_1": pass_at_k(n, c, 1), "pass_10": pass_at_k(n, c, min(10, n))}


def vote(numbers: Sequence[float | None]) -> float | None:
    """The commonest number, of equally common ones the first; None where no answer had one."""
    counts = Counter(number for number in numbers if number is not None)
    return max(counts, key=lambda number: counts[number]) if counts else None


def first_number(text: str) -> float | None:
    match = _NUMBER.search(text)
    return None if match is None else float(match[0].replace(",", ""))


def last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def same_number(said: float | None, gold: str) -> bool:
    return said is not None and abs(said - float(gold)) < 1e-6
