"""How far do words alone get? `python bench/bag_of_words.py runs/tiny`

A logistic bag of words over the two answers of a pair, prompts unseen by it, on the "significantly better" preferences
that the run's own models gave. Near 50% the preferences need the prompt to be understood; a world where this number is
high could be solved by a phrase list (the tests hold it to 65% on simulated answers).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold


def accuracy(run: Path) -> tuple[float, int]:
    """(accuracy over 3 folds by prompt, number of pairs)."""
    files = sorted(run.glob("*_preferences/*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = [row for row in rows if row["strength"] == 3]
    chosen, rejected = ([row[side][0]["content"] for row in rows] for side in ("chosen", "rejected"))
    words = CountVectorizer(binary=True).fit(chosen + rejected)
    difference_NW = words.transform(chosen).toarray().astype(float) - words.transform(rejected).toarray()
    prompts = {row["id"].split("#")[0]: None for row in rows}
    number = {name: i for i, name in enumerate(prompts)}
    groups = np.array([number[row["id"].split("#")[0]] for row in rows])
    hits = []
    for train, test in GroupKFold(3).split(difference_NW, groups=groups):
        both = np.vstack([difference_NW[train], -difference_NW[train]])
        labels = np.repeat([1, 0], len(train))
        model = LogisticRegression(C=0.3, fit_intercept=False, max_iter=500).fit(both, labels)
        hits.append((difference_NW[test] @ model.coef_[0] > 0).mean())
    return float(np.mean(hits)), len(rows)


if __name__ == "__main__":
    share, pairs = accuracy(Path(sys.argv[1]))
    print(f"bag of words on {pairs} significantly better pairs: {share:.1%}")
