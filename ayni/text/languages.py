"""Which language a text is in. The paper uses fastText; py3langid (a naive Bayes model over byte n-grams, 139 languages)
ships its model inside the package, without pickle, and needs no download."""

from __future__ import annotations

from collections.abc import Callable

Identify = Callable[[str], tuple[str, float]]
UNKNOWN = "unknown"


def py3langid_identifier() -> Identify:
    """(ISO 639 code, probability over all its languages) of a text."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ValueError(
            "languages are identified by py3langid, which is not installed: pip install 'ayni[audit]', "
            "or leave languages out with --language none"
        ) from None
    identify: Identify = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
    return identify
