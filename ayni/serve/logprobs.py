"""Log-probabilities in OpenAI's two forms: of chats (a list of tokens) and of completions (four parallel lists)."""

from __future__ import annotations

from collections.abc import Sequence

from ayni.serve.generation import Entry
from ayni.serve.responses import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob
from ayni.serve.vocabulary import Vocabulary

LEAST = -9999.0  # stands for minus infinity, which JSON cannot say


def chat_logprobs(vocabulary: Vocabulary, entries: Sequence[Entry], top: int) -> ChatLogprobs:
    content = []
    for entry in entries:
        own = _top_logprob(vocabulary, entry.id, entry.logprob)
        # The token's own number is the same in both places: clients compare them (==).
        ranked = [
            (token, entry.logprob if token == entry.id else logprob) for token, logprob in (entry.top or [])[:top]
        ]
        likeliest = [_top_logprob(vocabulary, token, logprob) for token, logprob in ranked]
        content.append(TokenLogprob(**own.model_dump(), top_logprobs=likeliest))
    return ChatLogprobs(content=content)


def completion_logprobs(vocabulary: Vocabulary, entries: Sequence[Entry], top: int) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=[vocabulary.text(entry.id) for entry in entries],
        token_logprobs=[None if entry.logprob is None else _finite(entry.logprob) for entry in entries],
        top_logprobs=[_by_text(vocabulary, entry, top) for entry in entries] if top else None,
        text_offset=[entry.offset for entry in entries],
    )


def _top_logprob(vocabulary: Vocabulary, token: int, logprob: float | None) -> TopLogprob:
    assert logprob is not None, "only a prompt's first token has none, and a chat does not echo its prompt"
    return TopLogprob(token=vocabulary.text(token), logprob=_finite(logprob), bytes=vocabulary.bytes_of(token))


def _by_text(vocabulary: Vocabulary, entry: Entry, top: int) -> dict[str, float] | None:
    """The `top` likeliest and the token itself, whose number is the same in both lists: clients compare them (==).

    Of tokens that read the same (parts of characters) the likeliest stands for all.
    """
    if entry.logprob is None:
        return None
    found: dict[str, float] = {}
    for token, logprob in (entry.top or [])[:top]:
        found.setdefault(vocabulary.text(token), _finite(entry.logprob if token == entry.id else logprob))
    found.setdefault(vocabulary.text(entry.id), _finite(entry.logprob))
    return found


def _finite(logprob: float) -> float:
    return max(logprob, LEAST)
