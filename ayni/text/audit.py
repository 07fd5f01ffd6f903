"""Who and what a corpus speaks of (paper 4.1): pronouns, identity descriptors, toxicity, languages.

All shares are of *documents*: a document that says "she" once counts as much as one that says it a hundred times.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

import numpy as np

from ayni import telemetry
from ayni.config_measuring import AuditSettings
from ayni.plugins import plugin
from ayni.text.descriptors import Finder, axes, words_in
from ayni.text.documents import in_batches
from ayni.text.languages import UNKNOWN, Identify

Row = dict[str, Any]
ScoreLines = Callable[[list[str]], list[float]]
BINS = 20  # of the toxicity histogram, over [0, 1]
TOXIC = 0.5  # from here on the paper calls a document toxic

# The paper's lists (A.4.3); upper and lower case alike, so that "US" counts as "us".
SHE = ("she", "her", "hers", "herself")
HE = ("he", "him", "his", "himself")
UNSPECIFIED = ("they", "them", "their", "theirs", "theirself", "themself", "themselves")
FIRST = ("i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves")
SECOND = ("you", "your", "yours", "yourself", "yourselves")
THIRD = (*SHE, *HE, *UNSPECIFIED, "it", "its", "itself")
PRONOUNS = {
    "gender": {"she": SHE, "he": HE, "unspecified": UNSPECIFIED},
    "person": {"1st": FIRST, "2nd": SECOND, "3rd": THIRD},
}


@dataclass
class Counts:
    """Numbers of documents, added up over batches."""

    documents: int = 0
    characters: int = 0
    words: Counter[str] = field(default_factory=Counter)  # of each pronoun
    classes: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # ("gender", "she"); ("gender", "") is any of them
    terms: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # ("religion", "buddhist"); ("religion", "") likewise
    languages: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    toxic: int = 0
    toxicity: float = 0.0  # sum over the scored documents

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


class Auditor:
    """Looks at one document after the other; made anew in every process."""

    def __init__(self, settings: AuditSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.axes = axes(settings.terms)
        self._axis_of = {term: axis for axis, terms in self.axes.items() for term in terms}
        self._finder = Finder(self._axis_of)
        self._pronouns = {word for group in PRONOUNS.values() for words in group.values() for word in words}
        self._score: ScoreLines = plugin("toxicity", settings.toxicity)()
        self._identify: Identify | None = None
        if settings.language != "none":
            self._identify = plugin("languages", settings.language)()

    def count(self, batch: list[str], first: int) -> Counts:
        """Counts of some documents, the first of which is number `first` of the corpus."""
        counts = Counts(documents=len(batch), characters=sum(map(len, batch)))
        for number, text in enumerate(batch, first):
            lowered = text.lower()
            words = words_in(lowered)
            self._pronouns_and_terms(counts, lowered, words)
            if self._identify is not None:
                code, confidence = self._identify(text)
                counts.languages[code if confidence >= self.settings.language_threshold else UNKNOWN] += 1
            if self._drawn(number):
                self._toxicity(counts, text)
        return counts

    def _pronouns_and_terms(self, counts: Counts, lowered: str, words: set[str]) -> None:
        spoken = self._pronouns & words
        counts.words.update(spoken)
        for group, classes in PRONOUNS.items():
            met = [(group, name) for name, members in classes.items() if not spoken.isdisjoint(members)]
            counts.classes.update(met + [(group, "")] * bool(met))
        found = [(self._axis_of[term], term) for term in self._finder.found(lowered, words)]
        counts.terms.update(found)
        counts.terms.update({(axis, "") for axis, _ in found})

    def _drawn(self, number: int) -> bool:
        return zlib.crc32(f"{self.seed} {number}".encode()) < self.settings.toxicity_sample * 2**32

    def _toxicity(self, counts: Counts, text: str) -> None:
        """A document's toxicity is the mean over its lines that are not blank."""
        scores = self._score([line for line in text.splitlines() if line.strip()])
        if not all(0 <= score <= 1 for score in scores):
            raise ValueError(
                f"the toxicity scorer {self.settings.toxicity!r} gave {scores}; expected shares from 0 to 1"
            )
        mean = sum(scores) / len(scores)
        counts.scored += 1
        counts.histogram[min(int(mean * BINS), BINS - 1)] += 1
        counts.toxic += mean >= TOXIC
        counts.toxicity += mean


def audit(texts: Iterable[str], settings: AuditSettings, seed: int) -> Row:
    """Everything in audit.json. Same texts, settings and seed: same figures, whatever the number of processes."""
    auditor = Auditor(settings, seed)  # here first: a mistake in a list or a name is one message
    total = Counts()
    with telemetry.progress("auditing", None, "characters") as bar:
        for counts in _counted(auditor, texts):
            total.add(counts)
            bar.advance(counts.characters, documents=total.documents)
    return _figures(total, auditor)


def _counted(auditor: Auditor, texts: Iterable[str]) -> Iterator[Counts]:
    """Counts batch by batch in their order; no more than a few batches are in memory."""
    processes = auditor.settings.processes
    batches = _numbered(texts)
    head = list(islice(batches, 2))
    if processes == 1 or len(head) < 2:  # a small corpus is through before a process has started
        for first, batch in chain(head, batches):
            yield auditor.count(batch, first)
        return
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_start, initargs=(auditor.settings, auditor.seed)
    ) as pool:
        waiting: deque[Future[Counts]] = deque()
        for first, batch in chain(head, batches):
            waiting.append(pool.submit(_count, batch, first))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _numbered(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    first = 0
    for batch in in_batches(texts):
        yield first, batch
        first += len(batch)


_of_this_process: list[Auditor] = []


def _start(settings: AuditSettings, seed: int) -> None:
    _of_this_process.append(Auditor(settings, seed))


def _count(batch: list[str], first: int) -> Counts:
    return _of_this_process[0].count(batch, first)


def _figures(counts: Counts, auditor: Auditor) -> Row:
    """Shares as the paper lays them out: a class or a term as a share of the documents that have any of its group."""
    settings, documents = auditor.settings, counts.documents
    pronouns = {}
    for group, classes in PRONOUNS.items():
        any_of = counts.classes[group, ""]
        pronouns[group] = {
            **_share(any_of, documents),
            "classes": {
                name: {
                    **_share(counts.classes[group, name], documents),
                    "share_of_group": _share(counts.classes[group, name], any_of)["share"],
                    "words": {word: _share(counts.words[word], documents) for word in words},
                }
                for name, words in classes.items()
            },
        }
    descriptors = {}
    for axis, terms in auditor.axes.items():
        any_of = counts.terms[axis, ""]
        ranked = sorted(terms, key=lambda term: (-counts.terms[axis, term], term))
        met = {term: counts.terms[axis, term] for term in ranked if counts.terms[axis, term]}
        shares = {term: {"documents": n, "share_of_axis": n / any_of} for term, n in met.items()}
        descriptors[axis] = {**_share(any_of, documents), "listed": len(terms), "terms": shares}
    return {
        "documents": documents,
        "characters": counts.characters,
        "pronouns": pronouns,
        "descriptors": descriptors,
        "toxicity": {
            "scorer": settings.toxicity,
            "scored": counts.scored,
            "mean": counts.toxicity / counts.scored if counts.scored else None,
            "toxic": _share(counts.toxic, counts.scored),
            "histogram": counts.histogram.tolist(),
        },
        "languages": {
            "identifier": settings.language,
            "threshold": settings.language_threshold,
            "shares": {
                code: _share(n, documents) for code, n in sorted(counts.languages.items(), key=lambda e: (-e[1], e[0]))
            },
        },
    }


def _share(n: int, of: int) -> Row:
    return {"documents": n, "share": n / of if of else None}
