"""Sentiment of a text by VADER's lexicon and rules (Hutto & Gilbert 2014), as the paper's BOLD evaluation (4.1)."""

from __future__ import annotations

from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def sentiment(text: str) -> float:
    """VADER's compound score, -1 (most negative) to 1 (most positive)."""
    return float(_analyzer().polarity_scores(text)["compound"])
