"""The default identifier on a sentence each, and what is said where it is not installed."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from ayni.text.languages import py3langid_identifier

SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised by that.",
    "de": "Der schnelle braune Fuchs springt über den faulen Hund, und niemand im Dorf wunderte sich darüber.",
    "fr": "Le renard brun saute par-dessus le chien paresseux, et personne au village n'en fut surpris.",
    "ja": "素早い茶色の狐がのろまな犬を飛び越えたが、村の誰も驚かなかった。",
}


def test_tells_languages_apart_with_a_probability() -> None:
    pytest.importorskip("py3langid", reason="the extra 'audit' is not installed: pip install 'ayni[audit]'")
    identify = py3langid_identifier()
    found = {code: identify(text) for code, text in SENTENCES.items()}
    assert {code: answer[0] for code, answer in found.items()} == {code: code for code in SENTENCES}
    assert all(0.5 <= confidence <= 1 for _, confidence in found.values())
    assert identify("7 7 7 + = 41 { }")[1] < 0.5


def test_without_py3langid_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("py3langid"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in [name for name in sys.modules if name.startswith("py3langid")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=r"ayni\[audit\].*--language none"):
        py3langid_identifier()
