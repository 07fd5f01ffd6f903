"""Matches of the paper's A.6, against an oracle that is the definition itself, tried at every place and length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayni.text import matches
from ayni.text.matches import Samples, rolling_hashes

LENGTHS = (10, 12, 20)


def is_match(a: Sequence[int], b: Sequence[int]) -> bool:
    """Two stretches of one length: 10 equal tokens, then at most 4 that differ, the last one equal."""
    differ = [x != y for x, y in zip(a, b, strict=True)]
    return len(differ) >= 10 and not any(differ[:10]) and sum(differ) <= 4 and not differ[-1]


def all_matches(sample: Sequence[int], documents: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """The oracle: beginning and length of every match there is, maximal or not."""
    for document in documents:
        for i in range(len(sample)):
            for j in range(len(document)):
                if sample[i : i + 10] == document[j : j + 10]:  # saves time alone: is_match asks for it
                    for length in range(10, min(len(sample) - i, len(document) - j) + 1):
                        if is_match(sample[i : i + length], document[j : j + length]):
                            yield i, length


def contaminated(sample: Sequence[int], documents: Sequence[Sequence[int]], shortest: int) -> set[int]:
    """Positions of the sample inside a match longer than `shortest`."""
    found = all_matches(sample, documents)
    return {place for i, length in found if length > shortest for place in range(i, i + length)}


def laid_out(documents: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Flat tokens, each document between two walls."""
    flat = [token for document in documents for token in (0, *document, 0)]
    wall = [is_wall for document in documents for is_wall in (True, *[False] * len(document), True)]
    return np.array(flat, np.uint16), np.array(wall, bool)


def found(samples: Sequence[Sequence[int]], documents: Sequence[Sequence[int]], shortest: int) -> list[set[int]]:
    index = Samples(samples)
    inside: list[set[int]] = [set() for _ in samples]
    for batch in index.matches(*laid_out(documents)):
        for begin, end in zip(batch.begin_M.tolist(), batch.end_M.tolist(), strict=True):
            number = int(index.sample_E[begin])
            first = int(index.offsets[number])
            if end - begin > shortest:
                inside[number] |= set(range(begin - first, end - first))
    return inside


@st.composite
def planted(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Samples and documents of few tokens, with stretches of the samples, some of them altered, put into documents."""
    vocabulary = draw(st.sampled_from([1, 2, 3, 40]))
    tokens = st.integers(1, vocabulary)
    samples = draw(st.lists(st.lists(tokens, max_size=36), min_size=1, max_size=4))
    documents = draw(st.lists(st.lists(tokens, max_size=14), min_size=1, max_size=3))
    for _ in range(draw(st.integers(0, 4))):
        source = draw(st.sampled_from(samples))
        if not source:
            continue
        begin = draw(st.integers(0, len(source) - 1))
        copy = source[begin : begin + draw(st.integers(1, 36))]
        for _ in range(draw(st.integers(0, 6))):
            copy[draw(st.integers(0, len(copy) - 1))] = draw(st.integers(1, vocabulary + 1))
        into = draw(st.sampled_from(documents))
        at = draw(st.integers(0, len(into)))
        into[at:at] = copy
    return samples, documents


@settings(deadline=None, max_examples=150)
@given(planted())
def test_equals_the_definition_on_random_cases(case: tuple[list[list[int]], list[list[int]]]) -> None:
    samples, documents = case
    for shortest in LENGTHS:
        assert found(samples, documents, shortest) == [contaminated(s, documents, shortest) for s in samples]


def test_equals_the_definition_with_small_batches_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "PAIRS", 7)
    monkeypatch.setattr(matches, "BLOCK", 11)
    rng = np.random.default_rng(0)
    for _ in range(60):
        text = rng.integers(1, 5, 120)
        samples = [text[begin : begin + 40].tolist() for begin in rng.integers(0, 90, 4)]
        copy = np.where(rng.random(120) < 0.06, rng.integers(1, 5, 120), text)
        documents = [copy[:70].tolist(), copy[70:].tolist(), rng.integers(1, 5, 50).tolist()]
        assert found(samples, documents, 10) == [contaminated(s, documents, 10) for s in samples]


def test_equal_hashes_alone_make_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "rolling_hashes", lambda tokens: np.full(len(tokens), 7, np.uint64))
    rng = np.random.default_rng(1)
    samples = [rng.integers(1, 3, 25).tolist() for _ in range(5)]
    documents = [[*samples[2][3:20], 1, 2, 1], rng.integers(1, 3, 40).tolist()]
    assert found(samples, documents, 10) == [contaminated(s, documents, 10) for s in samples]


SAMPLE = list(range(100, 160))


@pytest.mark.parametrize("substitutions", range(6))
def test_planted_leaks_with_substitutions(substitutions: int) -> None:
    """Verbatim and with 1 to 4 tokens changed behind the tenth the whole sample is one match; with 5 only what stands
    in front of the fifth change, and what starts anew behind the first 10 tokens that are equal again."""
    changed = [15, 20, 25, 30, 35][:substitutions]
    leak = [7 if place in changed else token for place, token in enumerate(SAMPLE)]
    [inside] = found([SAMPLE], [[1, 2, 3, *leak, 4, 5]], 50)
    assert inside == (set(range(60)) if substitutions <= 4 else set())
    [inside] = found([SAMPLE], [[1, 2, 3, *leak, 4, 5]], 10)
    assert inside == (set(range(60)) if substitutions <= 4 else {*range(35), *range(36, 60)})


def test_no_mismatch_in_the_first_ten_and_none_at_the_end() -> None:
    for place in range(10):  # the match starts behind the change
        leak = [*SAMPLE[:place], 7, *SAMPLE[place + 1 :]]
        assert found([SAMPLE], [leak], 10) == [set(range(place + 1, 60))]
    assert found([SAMPLE], [[*SAMPLE[:30], 7]], 10) == [set(range(30))]
    assert found([SAMPLE], [[*SAMPLE[:10], 7, 7, 7, 7, *SAMPLE[14:15], 7]], 10) == [set(range(15))]
    assert found([SAMPLE], [[*SAMPLE[:10], 7, 7, 7, 7, 7, *SAMPLE[15:20]]], 10) == [set()]


def test_longer_than_ten_means_eleven() -> None:
    assert found([SAMPLE], [SAMPLE[:10]], 10) == [set()]
    assert found([SAMPLE], [SAMPLE[:11]], 10) == [set(range(11))]


def test_a_match_ends_where_its_document_does() -> None:
    """Skipping the two walls would be within the budget of four."""
    assert found([SAMPLE], [SAMPLE[:20], SAMPLE[22:32]], 10) == [set(range(20))]


def test_tokens_that_no_sample_has_may_be_skipped() -> None:
    assert found([[*range(1, 15)]], [[60_000, *range(1, 12), 60_000, 13, 14]], 10) == [set(range(14))]


def test_nothing_to_find() -> None:
    assert found([[]], [[1] * 20], 10) == [set()]
    assert found([[1] * 9, [2] * 30], [[1] * 30], 10) == [set(), set()]
    assert found([[1] * 30], [[]], 10) == [set()]


def test_rolling_hashes_are_those_of_each_gram() -> None:
    tokens = np.random.default_rng(2).integers(0, 50_000, 300)
    rolled = rolling_hashes(tokens)[:291]
    assert rolled.tolist() == [int(rolling_hashes(tokens[j : j + 10])[0]) for j in range(291)]
    assert len(set(rolled.tolist())) == 291


def test_pruned_places_are_not_looked_at() -> None:
    index = Samples([SAMPLE, SAMPLE[:30]])
    open_E = np.zeros(90, bool)
    open_E[60:] = True
    tokens, wall = laid_out([SAMPLE])
    [batch] = list(index.matches(tokens, wall, open_E))
    assert (batch.begin_M.tolist(), batch.end_M.tolist()) == ([60], [90])
