"""Text from tokens: nothing lost, nothing said too early, in time that grows with the text alone."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from ayni.serve.text_stream import BROKEN, TextStream
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from tests.text.samples import sample_texts

TEXTS = (
    "plain words, then 12 + 34",
    "你好, 世界",
    "👩‍👩‍👧 and 🇵🇪",
    "tabs\tand\n\nlines  ",
    " two  spaces ",
    "naïve ﬁ \u200b",
    "",
)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE as GPT-2's, whose tokens break characters anywhere."""
    directory: Path = tmp_path_factory.mktemp("byte_level")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(sample_texts(), trainer)
    made.save(str(directory / "tokenizer.json"))
    return load_tokenizer(directory)


@pytest.fixture(params=["sentencepiece", "byte_level"])
def tokenizer(request: pytest.FixtureRequest, serve_tokenizer: Tokenizer, byte_level: Tokenizer) -> Tokenizer:
    return serve_tokenizer if request.param == "sentencepiece" else byte_level


def pieces(stream: TextStream, ids: list[int]) -> list[str]:
    return [*(stream.push(token) for token in ids), stream.finish()]


def test_pieces_joined_are_the_text(tokenizer: Tokenizer) -> None:
    for text in (*TEXTS, " ".join(TEXTS * 5)):
        ids = tokenizer.encode(text)
        said = pieces(TextStream(tokenizer), ids)
        assert "".join(said) == tokenizer.decode(ids)
        assert not any(BROKEN in piece for piece in said)


def test_special_tokens_are_silent_and_take_no_spaces_with_them(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two three")
    between = [part for token in ids for part in (tokenizer.eos_id, token)]
    assert "".join(pieces(TextStream(tokenizer), between)) == tokenizer.decode(ids)


def test_any_ids_at_all_give_the_decoded_text(tokenizer: Tokenizer) -> None:
    """A random model's tokens: bytes of no character beside half characters and words."""
    rng = random.Random(0)
    silent = set(tokenizer.specials.values())
    words = [token for token in range(tokenizer.vocab_size) if token not in silent]
    for _ in range(200):
        ids = [rng.choice(words) for _ in range(rng.randint(1, 40))]
        stream = TextStream(tokenizer)
        said = "".join(pieces(stream, ids))
        assert stream.length == len(said)
        whole = tokenizer.decode(ids)
        if BROKEN not in whole:
            assert said == whole
        # How many marks stand for several broken bytes is the decoder's affair, what is whole is not.
        assert said.replace(BROKEN, "") == whole.replace(BROKEN, "")


def test_broken_bytes_do_not_hold_the_text_back_for_ever(serve_tokenizer: Tokenizer) -> None:
    broken = serve_tokenizer.piece_id("<0xFF>")
    assert broken is not None
    stream = TextStream(serve_tokenizer)
    said = [stream.push(broken) for _ in range(100)]
    assert len("".join(said)) > 80
    assert len("".join(said) + stream.finish()) == 100


def test_a_character_comes_when_its_last_byte_has_come(serve_tokenizer: Tokenizer) -> None:
    ids = [serve_tokenizer.piece_id(f"<0x{byte:02X}>") for byte in "👍".encode()]
    stream = TextStream(serve_tokenizer)
    assert [stream.push(token) for token in ids if token is not None] == ["", "", "", "👍"]


SHORT = st.text(alphabet="abc ", min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="abc 你\n", max_size=40),
    stops=st.lists(SHORT, max_size=3),
    strip=st.booleans(),
)
def test_the_text_ends_in_front_of_the_first_stop_string(
    serve_tokenizer: Tokenizer, text: str, stops: list[str], strip: bool
) -> None:
    ids = serve_tokenizer.encode(text)
    whole = serve_tokenizer.decode(ids)
    found = [whole[: whole.find(stop)] for stop in stops if stop in whole]
    wanted = [text.strip() if strip else text for text in found or [whole]]
    stream = TextStream(serve_tokenizer, stops, strip)
    said = "".join(pieces(stream, ids))
    assert said in wanted  # of stop strings that overlap the one that is complete first counts
    assert not any(stop in said for stop in stops)
    assert stream.stopped == bool(found)
    assert stream.length == len(said)
    assert pieces(stream, ids) == [""] * (len(ids) + 1) or not found


def test_a_possible_beginning_of_a_stop_string_waits(serve_tokenizer: Tokenizer) -> None:
    letters = {letter: serve_tokenizer.encode(f"\n{letter}")[-1] for letter in "stopx"}
    stream = TextStream(serve_tokenizer, ["stop"])
    assert [stream.push(letters[letter]) for letter in "xsto"] == ["x", "", "", ""]
    assert stream.push(letters["x"]) == "stox"
    assert [stream.push(letters[letter]) for letter in "stop"] == ["", "", "", ""]
    assert stream.stopped
    assert stream.push(letters["x"]) + stream.finish() == ""


def test_time_grows_with_the_text_alone(serve_tokenizer: Tokenizer) -> None:
    ids = serve_tokenizer.encode("the rain in spain ") * 40

    def seconds(times: int) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            pieces(TextStream(serve_tokenizer, ["never"]), ids * times)
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(8) < 20 * seconds(1)
