"""A model under evaluation, asked in texts: how likely is this continuation, how likely is this text, what comes next.

Every result is written down the moment it is known (`Memory`), so an evaluation that was killed goes on where it stopped.
Nothing here knows lm-eval; its `LM` class (lm.py) is these three questions.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.engine.continuations import likelihoods
from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.evals.memory import Memory, Result, key_of
from ayni.model.transformer import Transformer
from ayni.text.dialogue import stop_ids
from ayni.text.native import Message
from ayni.text.template import render
from ayni.text.tokenizer import Tokenizer

PER_SAVE = 128  # requests answered between two saves


@dataclass(frozen=True)
class Continue:
    """A prompt to be continued. `nth` tells samples of one prompt apart; temperature 0 is greedy."""

    prompt: str
    until: tuple[str, ...] = ()
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    nth: int = 0


class Answering:
    """`max_rows`: answers decoded together; `compiled` as in `Engine`."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, memory: Path, max_rows: int = 64, compiled: bool = False
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_len = model.settings.max_seq_len
        self.memory = Memory(memory)
        self.engine = Engine(model, tokenizer, max_rows=max_rows, compiled=compiled)

    # ---- the three questions -------------------------------------------------------------------------------------------

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(log p(continuation | context) in nats, is it what greedy decoding would say), for (context, continuation)."""

        def score(chosen: list[tuple[str, str]]) -> list[list[Any]]:
            found = likelihoods(self.model, [self.encode_pair(*pair) for pair in chosen])
            return [[each.log_prob, each.is_greedy] for each in found]

        results = self._remembered("likelihood", pairs, score, "answers scored", lambda pair: -len(pair[0]))
        return [(float(log_prob), bool(is_greedy)) for log_prob, is_greedy in results]

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """log p(text) in nats, BOS in front; a text beyond the context is cut into windows, each token predicted once.

        As in lm-eval, a window's first token is predicted from the one before it alone, and the last window, which has
        room, sees as much of the text before it as the context holds.
        """

        def score(chosen: list[str]) -> list[float]:
            windows = [list(self._windows(text)) for text in chosen]
            scored = iter(likelihoods(self.model, [pair for of_text in windows for pair in of_text]))
            return [sum(next(scored).log_prob for _ in of_text) for of_text in windows]

        return [
            float(each) for each in self._remembered("rolling", texts, score, "texts scored", lambda text: -len(text))
        ]

    def continuations(self, asked: Sequence[Continue]) -> list[str]:
        """What the model says next, up to the first of `until`, its own end, or `max_new_tokens`."""

        def sample(chosen: list[Continue]) -> list[str]:
            completions = self.engine.generate([self._request(each) for each in chosen])
            return [self._said(each, completion.ids) for each, [completion] in zip(chosen, completions)]

        return self._remembered("continue", asked, sample, "answers written", lambda each: -len(each.prompt))

    # ---- texts and ids -------------------------------------------------------------------------------------------------

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of both, cut where the context's own ids end; white space at the context's end belongs to the continuation.

        lm-eval's convention, to the id: its `hf` model gives the same numbers.
        """
        if not context:
            ids = self.tokenizer.encode_marked(continuation)
            return [self.tokenizer.bos_id], ids[1:] if ids[:1] == [self.tokenizer.bos_id] else ids
        blank = len(context) - len(context.rstrip())
        if blank:
            context, continuation = context[:-blank], context[-blank:] + continuation
        context_ids = self.tokenizer.encode_raw(context)
        whole_ids = self.tokenizer.encode_raw(context + continuation)
        # A context that is all white space leaves nothing to condition on, a continuation may melt into its context.
        cut = min(len(context_ids), len(whole_ids) - 1)
        return whole_ids[:cut] or [self.tokenizer.bos_id], whole_ids[cut:]

    def dialogue(self, messages: Sequence[Message], is_open: bool = True) -> str:
        """The dialogue as text in the checkpoint's chat template. `is_open`: ready for an answer; else its last message, an
        answer already begun, is left open at its end. ValueError where the checkpoint has no template."""
        if self.tokenizer.template is None:
            raise ValueError("the model has no chat template; evaluate it without --chat")
        turns, begun = (list(messages), "") if is_open else (list(messages[:-1]), messages[-1]["content"])
        return render(self.tokenizer.template, turns, self.tokenizer.named, add_generation_prompt=True) + begun

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        ids = self.tokenizer.encode_marked(text)
        for start in range(0, len(ids), self.max_len):
            end = min(start + self.max_len, len(ids))
            before = ids[max(0, end - self.max_len - 1) : start] if start else [self.tokenizer.bos_id]
            yield before, ids[start:end]

    def _request(self, each: Continue) -> Request:
        room = max(1, min(each.max_new_tokens, self.max_len - 1))
        ids = self.tokenizer.encode_raw(each.prompt) or [self.tokenizer.bos_id]
        return Request(
            prompt=ids[-(self.max_len - room) :],
            max_new_tokens=room,
            temperature=each.temperature,
            top_p=each.top_p,
            seed=zlib.crc32(_key("continue", each).encode()),
            stop_ids=stop_ids(self.tokenizer),
            stop_strings=each.until,
        )

    def _said(self, each: Continue, ids: list[int]) -> str:
        ends = set(stop_ids(self.tokenizer))
        text = self.tokenizer.decode([token for token in ids if token not in ends])
        for stop in filter(None, each.until):
            text = text.split(stop)[0]
        return text

    # ---- memory --------------------------------------------------------------------------------------------------------

    def _remembered(
        self,
        question: str,
        asked: Sequence[Any],
        answer: Callable[[list[Any]], list[Result]],
        unit: str,
        order: Callable[[Any], int],
    ) -> list[Result]:
        """Results in the order asked: the known ones looked up, the others answered longest first, saved as they come."""
        keys = [_key(question, each) for each in asked]
        new = {key: each for key, each in zip(keys, asked) if key not in self.memory.known}
        waiting = sorted(new, key=lambda key: (order(new[key]), str(new[key])))
        with telemetry.progress(question, len(waiting), unit) as bar:
            for start in range(0, len(waiting), PER_SAVE):
                chosen = waiting[start : start + PER_SAVE]
                self.memory.add(dict(zip(chosen, answer([new[key] for key in chosen]), strict=True)))
                bar.advance(len(chosen))
        return [self.memory.known[key] for key in keys]


def numbered(asked: Sequence[Continue]) -> list[Continue]:
    """Equal requests with temperature told apart, so that each is a sample of its own."""
    seen: Counter[Continue] = Counter()
    out = []
    for each in asked:
        out.append(each if each.temperature == 0 else Continue(**{**vars(each), "nth": seen[each]}))
        seen[each] += 1
    return out


def _key(question: str, asked: Any) -> str:
    content = vars(asked) if isinstance(asked, Continue) else asked
    return key_of([question, content])
