"""Tokens in, text out as soon as it is certain: for whoever shows an answer while it is written.

What is held back: a character whose bytes have not all come, and the possible beginning of a stop string. Decoding looks
at a short window of tokens, so that a long answer costs time in proportion to its length.
"""

from __future__ import annotations

from collections.abc import Sequence

from ayni.text.tokenizer import Tokenizer

BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet
LONGEST_WAIT = 8  # tokens: a character has 4 bytes at most, so what is still broken after that stays broken


class TextStream:
    """The text of one answer. The pieces that `push` and `finish` return, joined, are the text.

    A stop string ends the text in front of it: from then on `stopped` is true and nothing more comes out. `strip` leaves
    out white space at both ends, as an answer in a dialogue has none (Llama 2's own format puts spaces there). `context`:
    the tokens of a text that goes on here, so that a first word keeps the space in front of it.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_strings: Sequence[str] = (), strip: bool = False, context: Sequence[int] = ()
    ) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._silent = set(tokenizer.specials.values())
        self._stops = tuple(stop_strings)
        self._strip = strip
        # Tokens whose text is out, for context, then those that wait.
        self._window = [token for token in context[-LONGEST_WAIT:] if token not in self._silent]
        self._context = len(self._window)  # a first token may decode without its leading space
        self._held = ""  # decoded, but perhaps the beginning of a stop string, or white space at the end
        self._out = 0  # characters that are out

    def push(self, token: int) -> str:
        """The text that has become certain with this token; often one word, sometimes nothing."""
        if self.stopped or token in self._silent:
            return ""
        self._window.append(token)
        return self._release(self._decoded(final=False), final=False)

    def finish(self) -> str:
        """What was held back, once no more tokens come."""
        return "" if self.stopped else self._release(self._decoded(final=True), final=True)

    def _decoded(self, final: bool) -> str:
        """The text of the waiting tokens if it is whole; they become the context of the next ones."""
        context = self._tokenizer.decode(self._window[: self._context])
        text = self._tokenizer.decode(self._window)[len(context) :]
        waiting = len(self._window) - self._context
        if not final and (not text or text.endswith(BROKEN)) and waiting < LONGEST_WAIT:
            return ""
        del self._window[: self._context]
        self._context = len(self._window)
        return text

    def _release(self, new: str, final: bool) -> str:
        text = self._held + new
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = final = True
            text = text[: min(ends)]
        keep = 0 if final else max((_overlap(text, stop) for stop in self._stops), default=0)
        out, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if self._strip:
            solid = out.rstrip()
            self._held = "" if final else out[len(solid) :] + self._held
            out = solid if self._out else solid.lstrip()
        self._out += len(out)
        return out

    @property
    def length(self) -> int:
        """Characters of the text so far, those held back included."""
        return self._out + len(self._held if self._out or not self._strip else self._held.lstrip())


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
