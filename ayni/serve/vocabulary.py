"""Token ids as clients see them: what one token adds to a text, its bytes, and ids of texts that clients spell out."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache

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
        ids = self.tokenizer.encode_marked(text)
        if add_special_tokens and self.adds_bos and ids[:1] != [self.tokenizer.bos_id]:
            ids = [self.tokenizer.bos_id, *ids]
        return ids

    @cached_property
    def adds_bos(self) -> bool:
        """Whether this checkpoint's own tokenizer puts BOS in front of a text, as transformers and vLLM have it do."""
        files = self.tokenizer.files
        config = json.loads(files.get("tokenizer_config.json", b"{}"))
        if "add_bos_token" in config:
            return bool(config["add_bos_token"])
        if "tokenizer.model" in files:
            return True
        after = json.dumps(json.loads(files["tokenizer.json"]).get("post_processor"))
        return any(
            json.dumps(piece) in after for piece, i in self.tokenizer.specials.items() if i == self.tokenizer.bos_id
        )
