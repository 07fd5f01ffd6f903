"""What an audit counts, against counting by hand and against a naive pass over random documents."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from ayni.config_measuring import AuditSettings
from ayni.text import audit as module
from ayni.text import documents
from ayni.text.audit import PRONOUNS, audit
from ayni.text.descriptors import axes

SETTINGS = AuditSettings(language="none", processes=1)


def test_the_papers_tables_by_hand() -> None:
    texts = [
        "She said it was hers.\nHe said nothing.",
        "They met a Buddhist monk and an American-born priest.",
        "I like soup.",
        "American soup, American bread. Nobody speaks.",
    ]
    found = audit(texts, SETTINGS, 0)
    assert found["documents"] == 4
    gender, person = found["pronouns"]["gender"], found["pronouns"]["person"]
    assert (gender["documents"], gender["share"]) == (2, 0.5)
    assert {name: c["documents"] for name, c in gender["classes"].items()} == {"she": 1, "he": 1, "unspecified": 1}
    assert gender["classes"]["she"]["share"] == 0.25
    assert gender["classes"]["she"]["share_of_group"] == 0.5
    assert gender["classes"]["she"]["words"]["hers"] == {"documents": 1, "share": 0.25}
    assert {name: c["documents"] for name, c in person["classes"].items()} == {"1st": 1, "2nd": 0, "3rd": 2}
    nationality, religion = found["descriptors"]["nationality"], found["descriptors"]["religion"]
    assert (nationality["documents"], nationality["share"]) == (2, 0.5)
    assert nationality["terms"] == {"american": {"documents": 2, "share_of_axis": 1.0}}
    assert religion["terms"] == {"buddhist": {"documents": 1, "share_of_axis": 1.0}}
    assert found["descriptors"]["gender_and_sex"] == {"documents": 0, "share": 0.0, "listed": len(axes()["gender_and_sex"]), "terms": {}}  # fmt: skip
    assert found["languages"]["shares"] == {}


def random_texts(count: int) -> list[str]:
    rng = random.Random(3)
    words = [w for classes in PRONOUNS.values() for members in classes.values() for w in members]
    words += ["soup", "dolt", "American", "native american", "jewish", "x", "It's", "US", "I'm", "you-know", "himself_"]
    return [
        rng.choice(["", "\n"]).join([" ".join(rng.choices(words, k=rng.randint(1, 9))), " soup"]) for _ in range(count)
    ]


def naive(texts: list[str]) -> dict[Any, int]:
    """Documents with a word or term, one pattern each; and with a class, an axis or a group."""

    def has(text: str, terms: tuple[str, ...]) -> bool:
        return any(
            re.search(rf"(?<!\w){re.escape(t).replace(chr(92) + ' ', '[ -]')}(?!\w)", text.lower()) for t in terms
        )

    out: dict[Any, int] = {}
    for group, classes in PRONOUNS.items():
        for name, members in classes.items():
            out[group, name] = sum(has(text, members) for text in texts)
            out |= {word: sum(has(text, (word,)) for text in texts) for word in members}
        out[group] = sum(any(has(text, members) for members in classes.values()) for text in texts)
    for axis, terms in axes().items():
        out[axis] = sum(has(text, terms) for text in texts)
        out |= {(axis, term): n for term in terms if (n := sum(has(text, (term,)) for text in texts))}
    return out


def test_equals_a_naive_count_on_random_documents() -> None:
    texts = random_texts(120)
    found, expected = audit(texts, SETTINGS, 0), naive(texts)
    for group, entry in found["pronouns"].items():
        assert entry["documents"] == expected[group]
        for name, inside in entry["classes"].items():
            assert inside["documents"] == expected[group, name]
            assert {w: c["documents"] for w, c in inside["words"].items()} == {w: expected[w] for w in inside["words"]}
    for axis, entry in found["descriptors"].items():
        assert entry["documents"] == expected[axis]
        assert {(axis, t): c["documents"] for t, c in entry["terms"].items()} == {k: n for k, n in expected.items() if k[0] == axis}  # fmt: skip
    assert expected["race_and_ethnicity", "native american"] > 0


def test_processes_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_texts(60)
    settings = SETTINGS.model_copy(update={"toxicity_sample": 0.5})
    alone = audit(texts, settings, 5)
    monkeypatch.setattr(documents, "BATCH", 100)
    assert audit(texts, settings.model_copy(update={"processes": 2}), 5) == alone
    assert 15 < alone["toxicity"]["scored"] < 45


def fixed(score: Callable[[str], float]) -> Callable[..., Any]:
    """Stands in for the plug-in table: every scorer is this one."""
    return lambda group, name: lambda: lambda lines: [score(line) for line in lines]


def test_toxicity_is_the_mean_over_lines_that_are_not_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "plugin", fixed(float))
    found = audit(["1.0\n\n  \n0.0", "0.2\n0.2", "1.0", "0.49"], SETTINGS, 0)["toxicity"]
    assert found["toxic"] == {"documents": 2, "share": 0.5}
    assert found["mean"] == pytest.approx((0.5 + 0.2 + 1.0 + 0.49) / 4)
    assert {i: n for i, n in enumerate(found["histogram"]) if n} == {4: 1, 9: 1, 10: 1, 19: 1}
    monkeypatch.setattr(module, "plugin", fixed(lambda line: 1.5))
    with pytest.raises(ValueError, match="expected shares from 0 to 1"):
        audit(["a"], SETTINGS, 0)


def test_the_default_scorer_sees_rude_words_alone() -> None:
    found = audit(["You dolt!\nGood morning.", "What a lovely day."], SETTINGS, 0)["toxicity"]
    assert (found["scorer"], found["mean"], found["toxic"]["documents"]) == ("rudeness", 0.25, 1)


def test_languages_below_the_threshold_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": ("en", 0.9), "b": ("de", 0.5), "c": ("fr", 0.49), "d": ("en", 0.51)}
    plugins = {"languages": lambda: answers.__getitem__, "toxicity": lambda: lambda lines: [0.0] * len(lines)}
    monkeypatch.setattr(module, "plugin", lambda group, name: plugins[group])
    found = audit(list(answers), SETTINGS.model_copy(update={"language": "stub"}), 0)["languages"]
    assert {code: n["documents"] for code, n in found["shares"].items()} == {"en": 2, "de": 1, "unknown": 1}


def test_a_plug_in_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no toxicity plug-in is called 'nobody'; known: .*rudeness"):
        audit(["a"], SETTINGS.model_copy(update={"toxicity": "nobody"}), 0)
