"""The layouts of Ghost Attention, token by token, and its mask."""

from __future__ import annotations

import pytest

from ayni.text.dialogue import encode_chat
from ayni.text.instructed import in_every_turn, in_first_turn, instruction_span, prompt_within, training_sample
from ayni.text.tokenizer import Tokenizer, train_tokenizer

RULE, ASKED = "Call me sir.", "Who bakes?"
SAID = [("Who sews?", "Tom, sir."), ("Who sings?", "Ann, sir."), ("Who rows?", "Bob, sir.")]


@pytest.fixture(scope="module")
def tok(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = ["Call me sir. Who bakes? Who sews? Tom, sir. Ann, sir. Who sings? Who rows? Bob, sir. " * 20]
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), vocab_size=300)


def marked(tok: Tokenizer, *parts: str) -> list[int]:
    """Markers as their single ids, the rest encoded: a dialogue written out by hand."""
    ids: list[int] = []
    for part in parts:
        special = {"<s>": tok.bos_id, "</s>": tok.eos_id}.get(part, tok.piece_id(part))
        ids += [special] if special is not None and part[0] in "<[" else tok.encode(part)
    return ids


def test_sampling_has_the_instruction_in_front_of_every_turn(tok: Tokenizer) -> None:
    expected = marked(
        tok, "<s>", "[INST]", "<<SYS>>", "Call me sir.", "<</SYS>>", "Who sews?", "[/INST]", "Tom, sir.", "</s>",
        "<s>", "[INST]", "<<SYS>>", "Call me sir.", "<</SYS>>", "Who sings?", "[/INST]", "Ann, sir.", "</s>",
        "<s>", "[INST]", "<<SYS>>", "Call me sir.", "<</SYS>>", "Who bakes?", "[/INST]",
    )  # fmt: skip
    assert in_every_turn(tok, RULE, "system", SAID[:2], ASKED) == expected
    joined = marked(
        tok, "<s>", "[INST]", "Call me sir. Who sews?", "[/INST]", "Tom, sir.", "</s>",
        "<s>", "[INST]", "Call me sir. Who sings?", "[/INST]", "Ann, sir.", "</s>",
        "<s>", "[INST]", "Call me sir. Who bakes?", "[/INST]",
    )  # fmt: skip
    assert in_every_turn(tok, RULE, "user", SAID[:2], ASKED) == joined
    alone = marked(tok, "<s>", "[INST]", "Call me sir. Who bakes?", "[/INST]")
    assert in_every_turn(tok, RULE, "user", [], ASKED) == alone


def test_training_has_it_in_the_first_turn_alone_and_loss_on_the_last_answer_alone(tok: Tokenizer) -> None:
    before = {
        "system": ("<s>", "[INST]", "<<SYS>>", "Call me sir.", "<</SYS>>", "Who sews?", "[/INST]"),
        "user": ("<s>", "[INST]", "Call me sir. Who sews?", "[/INST]"),
    }
    for where, first in before.items():
        prompt = marked(
            tok, *first, "Tom, sir.", "</s>", "<s>", "[INST]", "Who sings?", "[/INST]", "Ann, sir.", "</s>",
            "<s>", "[INST]", "Who rows?", "[/INST]",
        )  # fmt: skip
        answer = marked(tok, "Bob, sir.", "</s>")
        ids, mask, turns = training_sample(tok, RULE, where, SAID, row_len=512)
        assert ids == prompt + answer
        assert mask == [False] * len(prompt) + [True] * len(answer)
        assert turns == 3


def test_a_sample_that_does_not_fit_loses_its_last_turns_never_its_first(tok: Tokenizer) -> None:
    whole, _, _ = training_sample(tok, RULE, "system", SAID, 512)
    two, mask, turns = training_sample(tok, RULE, "system", SAID, len(whole) - 1)
    assert turns == 2
    assert two == training_sample(tok, RULE, "system", SAID[:2], 512)[0]
    assert two == whole[: len(two)]
    assert tok.decode([token for token, ours in zip(two, mask) if ours and token != tok.eos_id]).strip() == "Ann, sir."
    assert training_sample(tok, RULE, "system", SAID, len(two) - 1) == ([], [], 0)


def test_a_prompt_beyond_the_context_is_cut_from_the_second_exchange_on(tok: Tokenizer) -> None:
    whole, none = prompt_within(tok, RULE, "system", SAID, ASKED, 512)
    assert none == 0
    cut, dropped = prompt_within(tok, RULE, "system", SAID, ASKED, len(whole) - 1)
    assert dropped == 1
    assert cut == prompt_within(tok, RULE, "system", [SAID[0], SAID[2]], ASKED, 512)[0]
    shortest, dropped = prompt_within(tok, RULE, "system", SAID, ASKED, 1)
    assert dropped == 2
    assert shortest == prompt_within(tok, RULE, "system", SAID[:1], ASKED, 512)[0]
    assert prompt_within(tok, RULE, "system", [], ASKED, 1)[1] == 0
    every, _ = prompt_within(tok, RULE, "system", SAID, ASKED, 512, every=True)
    assert every == in_every_turn(tok, RULE, "system", SAID, ASKED)


def test_the_instructions_tokens_are_found(tok: Tokenizer) -> None:
    ids, _ = encode_chat(tok, in_first_turn(RULE, "system", SAID))
    span = instruction_span(tok, RULE, "system", SAID[0][0])
    assert ids[span] == marked(tok, "<<SYS>>", "Call me sir.", "<</SYS>>")
    ids, _ = encode_chat(tok, in_first_turn(RULE, "user", SAID))
    found = tok.decode(ids[instruction_span(tok, RULE, "user", SAID[0][0])])
    assert found.strip() in RULE
    assert len(found.strip()) > len(RULE) / 2
