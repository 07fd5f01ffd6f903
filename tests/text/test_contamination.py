"""Contamination of samples and what it does to scores: by hand, against the definition, and against the paper's Table 51."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ayni.text import contamination, documents
from ayni.text.contamination import LENGTHS, read_scores, scan, shows_effect, subsets, table_at, z_statistic
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import train_tokenizer

from .samples import sample_texts
from .test_matches import all_matches, contaminated


def corpus(*texts: str, file: str = "corpus.txt") -> list[tuple[Path, str]]:
    return [(Path(file), text) for text in texts]


def words(count: int, start: int = 0) -> list[str]:
    return [f"w{number}" for number in range(start, start + count)]


def test_shares_and_longest_match_by_hand() -> None:
    sample = words(60)
    leak = " ".join([*sample[:15], "other", *sample[16:25]])  # one match of 25 with one skip
    found = scan(
        [" ".join(sample), "quite another text"], [*corpus("no leak here"), *corpus("a", f"so {leak} end", file="b")]
    )
    assert found.share_KS[:, 0].tolist() == [25 / 60, 25 / 60, 0, 0, 0]
    assert found.share_KS[:, 1].tolist() == [0] * 5
    assert found.longest_S.tolist() == [25, 0]
    assert found.excerpt_S == [" ".join(sample[:25]), ""]
    assert found.origin_S == ["b, document 2", ""]
    assert (found.documents, found.training_tokens) == (3, 3 + 1 + 27)


@pytest.mark.parametrize("changed", range(6))
def test_planted_leaks_verbatim_and_with_substitutions(changed: int) -> None:
    """Up to four changed words behind the tenth leave one match of all 60; five split it."""
    sample = words(60)
    leak = [f"x{i}" if i in [15, 20, 25, 30, 35][:changed] else word for i, word in enumerate(sample)]
    found = scan([" ".join(sample)], corpus("before", "told: " + " ".join(leak) + " and so on"))
    assert found.longest_S[0] == (60 if changed <= 4 else 35)
    assert found.share_KS[LENGTHS.index(50), 0] == (1.0 if changed <= 4 else 0.0)


def test_ten_equal_words_are_no_match() -> None:
    sample = words(30)
    found = scan([" ".join(sample)], corpus(" ".join([*sample[:10], "other"]), " ".join(sample[12:22])))
    assert (found.longest_S.tolist(), found.excerpt_S, found.origin_S) == ([0], [""], [""])


def test_equals_the_definition_over_batches_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, so that what is covered already is left out in later ones; samples and documents share much."""
    monkeypatch.setattr(documents, "BATCH", 150)
    rng = random.Random(0)
    for _ in range(8):
        text = rng.choices(["a", "b", "c", "d"], k=150)
        samples = [text[begin : begin + 60] for begin in rng.sample(range(90), 4)]
        copies = [text[rng.randrange(80) :][: rng.randint(20, 70)] for _ in range(6)]
        copies = [[rng.choice("abcz") if rng.random() < 0.05 else word for word in copy] for copy in copies] + [
            samples[0]
        ] * 2
        found = scan([" ".join(s) for s in samples], corpus(*(" ".join(copy) for copy in copies)), None, (10, 20, 30))
        number = {word: i for i, word in enumerate("abcdz", 1)}
        coded = [[number[word] for word in s] for s in samples], [[number[word] for word in copy] for copy in copies]
        for k, length in enumerate((10, 20, 30)):
            expected = [len(contaminated(sample, coded[1], length)) for sample in coded[0]]
            assert found.contaminated_KS[k].tolist() == expected
        lengths = [[length for _, length in all_matches(sample, coded[1]) if length > 10] for sample in coded[0]]
        assert found.longest_S.tolist() == [max(own, default=0) for own in lengths]


def test_a_models_tokens(tmp_path: Path) -> None:
    """With a tokenizer of ours: tokens are its own, and no match reaches over the end of a document."""
    texts = sample_texts()
    pieces = train_tokenizer(texts, tmp_path, vocab_size=400)
    ids = pieces.encode(texts[0])
    found = scan([texts[0]], corpus(*texts[1:3], texts[0]), pieces)
    assert found.tokens_S.tolist() == [len(ids)]
    assert found.share_KS[0, 0] == 1.0
    assert found.origin_S == ["corpus.txt, document 3"]
    assert found.excerpt_S == [texts[0]]
    halves = [pieces.decode(ids[:12]), pieces.decode(ids[12:24])]
    assert scan([texts[0]], corpus(*halves), pieces).longest_S[0] <= 13


def test_subsets_overlap_as_the_papers() -> None:
    found = subsets(np.array([0.0, 0.199, 0.2, 0.5, 0.799, 0.8, 1.0]))
    assert {name: mask.sum() for name, mask in found.items()} == {
        "clean": 2,
        "not clean": 5,
        "not dirty": 5,
        "dirty": 2,
    }


# Table 51: model and set, n, mean score, mu_n and Z_n in the order clean, not clean, not dirty, dirty.
TABLE_51 = [
    ("HellaSwag 70B", [(7391, 80.0, 82.5, -5.73), (2651, 89.5, 82.4, 9.56), (9194, 81.6, 82.5, -2.27), (848, 92.2, 82.5, 7.42)]),
    ("HellaSwag 7B", [(7391, 70.5, 73.3, -5.46), (2651, 81.3, 73.4, 9.17), (9194, 72.4, 73.4, -2.06), (848, 83.7, 73.3, 6.84)]),
    ("MMLU-Humanities 70B", [(3996, 62.2, 65.3, -4.08), (709, 82.7, 65.3, 9.71), (4185, 62.7, 65.3, -3.50), (520, 85.8, 65.3, 9.80)]),
    ("MMLU-Humanities 7B", [(3996, 40.8, 42.9, -2.75), (709, 54.9, 42.8, 6.50), (4185, 41.1, 42.9, -2.25), (520, 56.9, 42.8, 6.49)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), TABLE_51)
def test_z_is_the_papers(name: str, rows: list[tuple[int, float, float, float]]) -> None:
    """Scores right or wrong, as many right as the set's accuracy says; means are rounded to 0.1 in the table."""
    total = rows[0][0] + rows[1][0]
    assert rows[2][0] + rows[3][0] == total
    score_S = np.zeros(total)
    score_S[: round(total * rows[0][2] / 100)] = 1
    zs = {}
    for subset, (n, mean, _, z) in zip(contamination.SIGNS, rows):
        ours = z_statistic(mean / 100, n, score_S)
        rounding = 0.0015 / (score_S.std() / n**0.5)  # of the mean and of mu
        assert ours == pytest.approx(z, abs=rounding + 0.05), (name, subset)
        zs[subset] = z
    assert shows_effect(zs)
    assert not shows_effect(zs | {"clean": -1.99})
    assert not shows_effect(zs | {"not dirty": 2.5})
    assert not shows_effect(zs | {"dirty": None})


def test_table_with_scores() -> None:
    share_S = np.array([0.0] * 700 + [0.5] * 100 + [1.0] * 200)
    rng = np.random.default_rng(0)
    helped = (rng.random(1000) < np.where(share_S > 0, 0.9, 0.4)).astype(float)
    table = table_at(share_S, helped)
    assert table["effect"] is True
    assert table["contamination"] == pytest.approx(0.25)
    rows = {row["subset"]: row for row in table["subsets"]}
    mu, sigma = helped.mean(), helped.std()
    assert rows["dirty"]["z"] == pytest.approx((helped[800:].mean() - mu) / (sigma / 200**0.5))
    assert rows["not clean"]["contamination"] == pytest.approx(250 / 300)
    assert table_at(share_S, (rng.random(1000) < 0.5).astype(float))["effect"] is False
    assert table_at(share_S, None)["effect"] is None
    assert table_at(np.zeros(5), np.ones(5))["subsets"][3] == {"subset": "dirty", "n": 0, "contamination": None, "mean": None, "mu": 1.0, "z": None}  # fmt: skip


def test_scores_are_found_by_id_and_mistakes_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"

    def written(rows: Iterable[dict[str, object]]) -> Path:
        write_jsonl(path, rows)
        return path

    assert read_scores(written([{"id": "b", "score": True}, {"id": 7, "score": 0.5}]), ["7", "b"]).tolist() == [
        0.5,
        1.0,
    ]
    with pytest.raises(ValueError, match="no score for 2 of 3 samples, the first being 'a'"):
        read_scores(path, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"line 1: expected \{\"id\""):
        read_scores(written([{"id": "b", "score": "high"}]), ["b"])
    with pytest.raises(ValueError, match="line 2: the id 'b' has a score already"):
        read_scores(written([{"id": "b", "score": 1}, {"id": "b", "score": 0}]), ["b"])
