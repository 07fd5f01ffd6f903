"""Token ids as clients see them: what one token adds to a text, its bytes, and ids of texts that clients spell out."""

from __future__ import annotations

from functools import lru_cache

from ayni.serve.text_stream import BROKEN
from ayni.text.tokenizer import Tokenizer

KEPT = 65536  # tokens whose text is remembered


class Vocabulary:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.names = {number: piece for piece, number in tokenizer.specials.items()}
        pieces = ((byte, tokenizer.piece_id(f"<0x{byte:02X}>")) for byte in range(256))
        self._byte = {number: byte for byte, number in pieces if number is not None}
        # A first token loses its leading space, so every token is decoded behind another one.
        self._before = tokenizer.encode("\n")[-1:]
        self._before_text = tokenizer.decode(self._before)
        self.text = lru_cache(KEPT)(self._text)

    def _text(self, token: int) -> str:
        """What the token adds in mid-text; a special token's name; U+FFFD for a part of a character."""
        if token in self.names:
            return self.names[token]
        return self.tokenizer.decode([*self._before, token])[len(self._before_text) :]

    def bytes_of(self, token: int) -> list[int] | None:
        """UTF-8 of the token's text; None where it is a part of a character and the tokenizer does not tell its bytes."""
        if token in self._byte:
            return [self._byte[token]]
        text = self.text(token)
        return None if BROKEN in text else list(text.encode())

    def encode_prompt_text(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text under the client's own control: special tokens in it count, and BOS goes in front once."""
        return self.tokenizer.encode_raw(text) if add_special_tokens else self.tokenizer.encode_marked(text)

    @property
    def adds_bos(self) -> bool:
        return self.tokenizer.adds_bos
