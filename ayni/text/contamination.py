"""How much of each evaluation sample stood in the training text, and whether the scores show it (paper A.6).

Contamination of a sample at L: the share of its tokens that lie in a match longer than L (matches.py says what a match is).
Four overlapping subsets: clean < 20%, not clean >= 20%, not dirty < 80%, dirty >= 80%. For a subset of n samples

    Z_n = (mean score of the subset - mu) / (sigma / sqrt(n)),

mu and sigma being mean and standard deviation of the scores of all samples. Contamination is called an effect at L only if
|Z_n| > 2 for all four, the clean and the not dirty ones below the mean, the not clean and the dirty ones above it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayni import telemetry
from ayni.text.documents import encode_documents
from ayni.text.matches import Samples
from ayni.text.plain_words import WALL, PlainWords
from ayni.text.sources import read_rows
from ayni.text.tokenizer import Tokenizer

Row = dict[str, Any]
LENGTHS = (10, 20, 30, 40, 50)  # the paper's minimum match lengths L
CLEAN, DIRTY = 0.2, 0.8
SIGNS = {"clean": -1, "not clean": 1, "not dirty": -1, "dirty": 1}
Z_LIMIT = 2.0


@dataclass(frozen=True)
class Coding:
    """Text to ids: of samples, of training documents (flat, each between two walls), and back."""

    encode_samples: Callable[[Sequence[str]], list[list[int]]]
    encode_documents: Callable[[Iterable[str]], Iterator[np.ndarray]]
    decode: Callable[[Iterable[int]], str]
    walls: tuple[int, ...]  # ids that stand around a document and never inside one


def coding_of(tokenizer: Tokenizer | None) -> Coding:
    """A model's tokens, or words and punctuation marks where no tokenizer is named."""
    if tokenizer is None:
        words = PlainWords()
        return Coding(words.encode_samples, words.encode_documents, words.decode, (WALL,))
    named = tokenizer
    return Coding(
        encode_samples=named.encode_all,
        encode_documents=lambda texts: encode_documents(named, texts),
        decode=named.decode,
        walls=(named.bos_id, named.eos_id),
    )


@dataclass(frozen=True)
class Found:
    """What a scan of the training text found, for S samples at K minimum lengths."""

    tokens_S: np.ndarray
    contaminated_KS: np.ndarray  # tokens
    longest_S: np.ndarray  # tokens of the longest match; 0: none
    excerpt_S: list[str]  # its text, in the sample
    origin_S: list[str]  # "FILE, document NUMBER" of its first occurrence; "": none
    documents: int
    training_tokens: int

    @property
    def share_KS(self) -> np.ndarray:
        """Contamination of each sample; of an empty one 0."""
        return self.contaminated_KS / np.maximum(self.tokens_S, 1)


def scan(
    texts: Sequence[str],
    training: Iterable[tuple[Path, str]],
    tokenizer: Tokenizer | None = None,
    lengths: Sequence[int] = LENGTHS,
) -> Found:
    """Matches all samples with all training documents, given as (file, text), in one pass over the latter.

    Memory: the samples' tokens and their 10-grams (some 100 bytes a token), and one chunk of training text.
    """
    coding = coding_of(tokenizer)
    samples = Samples(coding.encode_samples(texts))
    E, S = len(samples.tokens_E), len(texts)
    change_KE = np.zeros((len(lengths), E + 1), np.int32)  # +1 where a match begins, -1 behind its end
    best = np.zeros((3, S), np.int64)  # of each sample's longest match: length, begin, document
    files: list[tuple[int, Path]] = []  # number of the first document of every file
    documents = tokens = 0
    with telemetry.progress("matching", None, "training tokens") as bar:
        for tokens_T in coding.encode_documents(_noted(training, files)):
            wall_T = np.isin(tokens_T, coding.walls)
            document_T = documents + (wall_T.cumsum() - 1) // 2
            for found in samples.matches(tokens_T, wall_T, _open(change_KE[-1, :-1], best[0], samples)):
                length_M = found.end_M - found.begin_M
                for k, shortest in enumerate(lengths):
                    counts = length_M > shortest
                    np.add.at(change_KE[k], found.begin_M[counts], 1)
                    np.add.at(change_KE[k], found.end_M[counts], -1)
                _keep_longest(best, samples.sample_E[found.begin_M], length_M, found.begin_M, document_T[found.place_M])
            documents += int(wall_T.sum()) // 2
            tokens += len(tokens_T) - int(wall_T.sum())
            bar.advance(len(tokens_T), documents=documents, samples_hit=int((best[0] > 0).sum()))
    inside_KE = np.concatenate([np.zeros((len(lengths), 1), int), (change_KE.cumsum(1)[:, :-1] > 0).cumsum(1)], axis=1)
    return Found(
        tokens_S=np.diff(samples.offsets),
        contaminated_KS=np.diff(inside_KE[:, samples.offsets], axis=1),
        longest_S=best[0],
        excerpt_S=[coding.decode(samples.tokens_E[begin : begin + length].tolist()) for length, begin, _ in best.T],
        origin_S=[_origin(files, document) if length else "" for length, _, document in best.T.tolist()],
        documents=documents,
        training_tokens=tokens,
    )


def _noted(training: Iterable[tuple[Path, str]], files: list[tuple[int, Path]]) -> Iterator[str]:
    """The texts; on the way `files` learns where every file begins."""
    for number, (file, text) in enumerate(training):
        if not files or files[-1][1] != file:
            files.append((number, file))
        yield text


def _origin(files: list[tuple[int, Path]], document: int) -> str:
    first, file = files[bisect_right(files, document, key=lambda entry: entry[0]) - 1]
    return f"{file}, document {document - first + 1}"


def _open(change_E: np.ndarray, longest_S: np.ndarray, samples: Samples) -> np.ndarray:
    """True where a match that starts at a token may still add something: the token or one behind it in its sample is not
    contaminated yet at the largest L (and so at every L), or there is room for a longer match than the longest."""
    place_E = np.arange(len(change_E))
    next_open_E = np.where(change_E.cumsum() > 0, len(place_E), place_E)
    next_open_E = np.minimum.accumulate(next_open_E[::-1])[::-1]
    return (next_open_E < samples.end_E) | (samples.end_E - place_E > longest_S[samples.sample_E])


def _keep_longest(
    best: np.ndarray, sample_M: np.ndarray, length_M: np.ndarray, begin_M: np.ndarray, document_M: np.ndarray
) -> None:
    """Puts the longest match of each sample into `best`; the earlier in the training text and the sample wins a tie."""
    order = np.lexsort((begin_M, document_M, -length_M, sample_M))
    sample_M, length_M = sample_M[order], length_M[order]
    head = np.flatnonzero(np.diff(sample_M, prepend=-1))
    head = head[length_M[head] > best[0, sample_M[head]]]
    best[:, sample_M[head]] = length_M[head], begin_M[order[head]], document_M[order[head]]


def subsets(share_S: np.ndarray) -> dict[str, np.ndarray]:
    """The paper's four overlapping subsets as masks."""
    clean_S, dirty_S = share_S < CLEAN, share_S >= DIRTY
    return {"clean": clean_S, "not clean": ~clean_S, "not dirty": ~dirty_S, "dirty": dirty_S}


def table_at(share_S: np.ndarray, score_S: np.ndarray | None) -> Row:
    """Contamination and, where there are scores, Z_n of the four subsets at one L; `effect` is None without scores."""
    rows: list[Row] = []
    for name, mask_S in subsets(share_S).items():
        n = int(mask_S.sum())
        row: Row = {"subset": name, "n": n, "contamination": float(share_S[mask_S].mean()) if n else None}
        if score_S is not None:
            mean = float(score_S[mask_S].mean()) if n else None
            row |= {"mean": mean, "mu": float(score_S.mean()), "z": z_statistic(mean, n, score_S)}
        rows.append(row)
    effect = None if score_S is None else shows_effect({row["subset"]: row["z"] for row in rows})
    return {"contamination": float(share_S.mean()), "subsets": rows, "effect": effect}


def z_statistic(mean: float | None, n: int, score_S: np.ndarray) -> float | None:
    """Z_n of a subset; None for an empty one and where all scores are equal."""
    mu, sigma = float(score_S.mean()), float(score_S.std())
    return None if mean is None or sigma == 0 else (mean - mu) / (sigma / math.sqrt(n))


def shows_effect(z: dict[str, float | None]) -> bool:
    """All four |Z_n| > 2, with the signs that contamination would give them."""
    return all((value := z[name]) is not None and sign * value > Z_LIMIT for name, sign in SIGNS.items())


def read_scores(path: Path, ids: Sequence[str]) -> np.ndarray:
    """Scores of the samples in the order of `ids`, from rows with `id` and `score` (a number, or true and false)."""
    scores: dict[str, float] = {}
    for where, row in read_rows(path):
        if "id" not in row or not isinstance(row.get("score"), int | float) or not math.isfinite(row["score"]):
            raise ValueError(f'{where}: expected {{"id": ..., "score": number}}, found {str(row)[:80]}')
        if str(row["id"]) in scores:
            raise ValueError(f"{where}: the id {row['id']!r} has a score already")
        scores[str(row["id"])] = float(row["score"])
    missing = [name for name in ids if name not in scores]
    if missing:
        raise ValueError(
            f"{path}: no score for {len(missing)} of {len(ids)} samples, the first being {missing[0]!r}; "
            "samples without an id are called FILE-NUMBER"
        )
    return np.array([scores[name] for name in ids])
