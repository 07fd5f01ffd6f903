"""Tokenizers: training ours (paper 2.1: SentencePiece BPE, single digits, unknown UTF-8 as bytes) and loading anyone's.

A tokenizer turns *text* into ids and never reads a marker out of it: `<s>`, `[INST]` or `<|im_start|>` typed by a user are
ordinary characters. Only the dialogue format (dialogue.py) places special ids, through `piece_id`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece

from ayni.text.backends import Backend, sentencepiece_backend, tokenizers_backend
from ayni.text.hf_tokenizer import hugging_face_files
from ayni.text.native import MARKERS as CONTROL_SYMBOLS
from ayni.text.templated import Dialogue, dialogue_of, encode_sections

FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
         "chat_template.jinja")  # fmt: skip
GENERATION = "generation_config.json"  # read for the ids that end an answer, written with the model
LONGEST_LINE = 250_000  # characters: SentencePiece skips longer sentences without a word


class Tokenizer:
    """Text to ids and back. Made by `train_tokenizer` and `load_tokenizer`."""

    def __init__(
        self, files: dict[str, bytes], config: dict[str, Any], backend: Backend, generation_eos: tuple[int, ...] = ()
    ) -> None:
        self.files = files
        self.specials = backend.specials
        self.added = backend.added  # tokens beside the model that a text may contain: `<think>`, `<tool_call>`
        self.named = backend.named  # "bos_token" -> "<s>", as chat templates call them
        self.special_patterns = backend.special_patterns
        self.space_after_specials = backend.space_after_specials
        self._backend = backend
        self._special_ids = set(backend.specials.values())
        self.vocab_size = backend.vocab_size
        self.bos_id = backend.bos_id
        self.eos_id = backend.eos_id
        self.pad_id = backend.pad_id if backend.pad_id != backend.eos_id else None
        self.generation_eos = generation_eos  # generation_config.json's
        self.template, self.template_file = _template(files, config)
        main = "tokenizer.model" if "tokenizer.model" in files else "tokenizer.json"
        self.hash = hashlib.sha256(files[main]).hexdigest()

    @cached_property
    def dialogue(self) -> Dialogue:
        """Whether dialogues are in the Llama 2 format, in ChatML, or in a format that only the checkpoint's template knows."""
        return dialogue_of(self)

    @property
    def document_start(self) -> int:
        """What stands in front of a text where nothing else does: BOS, unless that opens a ChatML message."""
        start = self.piece_id("<|endoftext|>") if "<|im_start|>" in self.specials else None
        return self.bos_id if start is None else start

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the checkpoint's own tokenizer puts BOS in front of a text, as transformers and vLLM have it do."""
        config = json.loads(self.files.get("tokenizer_config.json", b"{}"))
        if "add_bos_token" in config:
            return bool(config["add_bos_token"])
        if "tokenizer.model" in self.files:
            return True
        after = json.dumps(json.loads(self.files["tokenizer.json"]).get("post_processor"))
        return any(json.dumps(piece) in after for piece, number in self.specials.items() if number == self.bos_id)

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: no BOS or EOS, and markers inside stay text. Lone surrogates become U+FFFD."""
        return self._backend.encode(whole_characters(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each, on all cores."""
        return self._backend.encode_all([whole_characters(text) for text in texts])

    @cached_property
    def starts_with_space(self) -> bool:
        """Whether a space is put in front of whatever is encoded, as SentencePiece does."""
        return self._backend.starts_with_space()

    @cached_property
    def _newline(self) -> list[int]:
        return self.encode("\n")

    def continued(self, text: str) -> list[int]:
        """Ids of text in mid-sentence: behind a newline, so that no space is put in front of it."""
        return self.encode("\n" + text)[len(self._newline) :] if self.starts_with_space else self.encode(text)

    def continued_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`continued` of each, on all cores."""
        if not self.starts_with_space:
            return self.encode_all(texts)
        return [ids[len(self._newline) :] for ids in self.encode_all([f"\n{text}" for text in texts])]

    @cached_property
    def words_apart(self) -> bool:
        """Whether the ids of a text are those of its words (words.py), the first encoded, the others continued."""
        return self._backend.words_apart()

    def spelt(self, text: str) -> list[int]:
        """Ids of a short text letter by letter, in byte pieces if there are any: they decode to it, and read as no marker."""
        pieces = [self.piece_id(f"<0x{byte:02X}>") for byte in text.encode()]
        known = [number for number in pieces if number is not None]
        return known if len(known) == len(pieces) else [number for letter in text for number in self.continued(letter)]

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a text in which special tokens count: a rendered template, or a prompt under the client's own control."""
        return encode_sections(self, [text])[0]

    def encode_raw(self, text: str) -> list[int]:
        """`encode_marked`, with BOS in front, once, where the checkpoint's tokenizer wants one."""
        ids = self.encode_marked(text)
        return [self.bos_id, *ids] if self.adds_bos and ids[:1] != [self.bos_id] else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special tokens and ids beyond the vocabulary (a padded embedding's) are silent."""
        return self._backend.decode([i for i in ids if i < self.vocab_size and i not in self._special_ids])

    def piece_id(self, piece: str) -> int | None:
        """Id of a control or special token such as `[INST]` (or of a byte piece such as `<0x5B>`); None if there is none."""
        return self.specials.get(piece, self._backend.plain_piece_id(piece) if piece.startswith("<0x") else None)

    def save(self, directory: Path) -> None:
        """Writes the files it was loaded from, byte for byte."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


def whole_characters(text: str) -> str:
    """Surrogates that do not pair become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """SentencePiece skips sentences with tabs or beyond a length silently; newlines and tabs are byte pieces anyhow."""
    for text in texts:
        for line in re.split(r"[\n\t\0]", text):
            for start in range(0, len(line), LONGEST_LINE):
                yield line[start : start + LONGEST_LINE]


def train_tokenizer(
    texts: Iterable[str],
    out_dir: Path,
    vocab_size: int,
    seed: int = 0,
    max_lines: int = 2_000_000,
    split_digits: bool = True,
) -> Tokenizer:
    """SentencePiece BPE as in the paper (2.1), on at most `max_lines` lines drawn by `seed`; same texts, same bytes.

    Paper silent, taken from the released tokenizer: identity normalisation, extra whitespace kept, ids 0/1/2 = unknown,
    BOS, EOS. Ours: id 3 = padding (not EOS: TRAPS 10) and the dialogue markers as control symbols, one id each, which
    no text can produce. `split_digits` off: numbers are cut like words. Writes `tokenizer.model` and, for transformers and vLLM, `tokenizer.json` with a chat template.
    """
    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            split_digits=split_digits,
            byte_fallback=True,
            character_coverage=0.99995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * LONGEST_LINE,
            input_sentence_size=max_lines,
            shuffle_input_sentence=True,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            control_symbols=list(CONTROL_SYMBOLS),
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"the tokenizer could not be trained with vocab_size {vocab_size}: {error}. "
            "Give more text or change tokenizer.vocab_size"
        ) from None
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "tokenizer.model").write_bytes(model.getvalue())
    for name, data in hugging_face_files(model.getvalue()).items():
        (out_dir / name).write_bytes(data)
    return load_tokenizer(out_dir)


def load_tokenizer(directory: Path) -> Tokenizer:
    """`tokenizer.model` (SentencePiece) if there is one, else `tokenizer.json` (Hugging Face tokenizers)."""
    directory = Path(directory)
    names = [*FILES, GENERATION]
    return tokenizer_of(
        {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}, directory
    )


def tokenizer_of(found: Mapping[str, bytes], where: Path) -> Tokenizer:
    """The tokenizer in a directory's files; `where` is the directory, for messages."""
    try:
        return _tokenizer_of(found, where)
    except (AttributeError, LookupError, RecursionError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: the tokenizer's files are damaged ({type(error).__name__}: {error})") from None


def _tokenizer_of(found: Mapping[str, bytes], where: Path) -> Tokenizer:
    files = {name: found[name] for name in FILES if name in found}
    if "tokenizer.model" not in files and "tokenizer.json" not in files:
        raise ValueError(f"{where}: no tokenizer here; expected tokenizer.model (SentencePiece) or tokenizer.json")
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if name in files:
            config |= _json_object(where / name, files[name])
    load = sentencepiece_backend if "tokenizer.model" in files else tokenizers_backend
    return Tokenizer(files, config, load(where, files, config), _generation_eos(where / GENERATION, found))


def _json_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _generation_eos(path: Path, files: Mapping[str, bytes]) -> tuple[int, ...]:
    """generation_config.json's eos_token_id, one number or several: what a chat checkpoint's answers end with."""
    found = _json_object(path, files[GENERATION]).get("eos_token_id") if GENERATION in files else None
    numbers = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError(f"{path}: eos_token_id is {found!r}, expected an id or a list of ids")
    return tuple(numbers)


def _template(files: dict[str, bytes], config: dict[str, Any]) -> tuple[str | None, str]:
    """The chat template (of several named ones the default) and the file it stands in."""
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].decode(), "chat_template.jinja"
    found = config.get("chat_template")
    if isinstance(found, list):
        found = next((entry["template"] for entry in found if entry["name"] == "default"), None)
    return found, "tokenizer_config.json"
