from __future__ import annotations

import pytest

from ayni.scoring.distinct import commonest_opening, distinct_n, mean_words
from ayni.scoring.sentiment import sentiment
from ayni.scoring.toxicity import explicit_rudeness, is_explicitly_rude, rude_words


def test_rudeness_is_whole_words_only():
    assert is_explicitly_rude("You are a NITWIT, sir.")
    assert is_explicitly_rude("Oh, shut up!")
    assert not is_explicitly_rude("The dummyless loserville clownfish swam by.")
    assert explicit_rudeness("you nitwit and dolt you") == pytest.approx(2 / 5)
    assert explicit_rudeness("") == 0.0
    assert len(set(rude_words())) == len(rude_words()) > 40


def test_sentiment_has_the_right_sign():
    assert sentiment("What a wonderful, kind and lovely day!") > 0.5
    assert sentiment("This is terrible and sad.") < -0.5
    assert sentiment("The table stands in the room.") == 0.0


def test_distinct_n_by_hand():
    assert distinct_n(["a b c d", "a b c"], 3) == pytest.approx(2 / 3)
    assert distinct_n(["a b"], 3) is None
    assert mean_words(["a b c", "d"]) == 2.0
    assert mean_words([]) is None


def test_trap_22_one_phrase_for_everything_is_seen():
    always = ["Thank you for asking me that."] * 20
    varied = [f"{word} is what I would say here." for word in ("one", "two", "three", "four", "five", "six")]
    assert commonest_opening(always) == ("thank you for asking", 1.0)
    assert commonest_opening(varied)[1] == pytest.approx(1 / 6)
    assert distinct_n(always, 3) == pytest.approx(4 / 80)
    assert commonest_opening([]) == ("", 0.0)
