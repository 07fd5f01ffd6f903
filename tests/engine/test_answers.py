from __future__ import annotations

from pathlib import Path

import pytest

from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.text.dialogue import encode_prompt, stop_ids
from ayni.text.tokenizer import Tokenizer, train_tokenizer

from .models import tiny_model

ROWS = [{"id": f"p{i}", "messages": [{"role": "user", "content": f"Where does Tom {i} live?"}]} for i in range(12)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    text = "Tom lives in a small house near the river. Anna keeps bees and sells honey at the market. "
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    return train_tokenizer([text * 20], directory, vocab_size=300, seed=0)


def test_a_prompts_answers_depend_on_seed_and_id_alone(tokenizer: Tokenizer) -> None:
    engine = Engine(tiny_model(vocab_size=tokenizer.vocab_size, max_seq_len=128), tokenizer)
    wanted = {"temperature": 1.0, "max_new_tokens": 16, "n": 2}
    together = sample_answers(engine, tokenizer, ROWS, seed=1, **wanted)
    apart = sample_answers(engine, tokenizer, ROWS[::-3], seed=1, **wanted)
    other = sample_answers(engine, tokenizer, ROWS, seed=2, **wanted)
    assert [[a.ids for a in answers] for answers in together[::-3]] == [[a.ids for a in answers] for answers in apart]
    assert [[a.ids for a in answers] for answers in together] != [[a.ids for a in answers] for answers in other]
    assert len({tuple(answer.ids) for answers in together for answer in answers}) == 24
    assert row_seed(1, "p0") == 1237936580  # the same in every process


def test_an_answers_ids_text_and_end_belong_together(tokenizer: Tokenizer) -> None:
    engine = Engine(tiny_model(vocab_size=tokenizer.vocab_size, max_seq_len=128), tokenizer)
    answers = sample_answers(engine, tokenizer, ROWS, temperature=1.5, max_new_tokens=60, seed=1, n=8)
    for row, samples in zip(ROWS, answers):
        for answer in samples:
            assert answer.prompt_ids == encode_prompt(tokenizer, row["messages"])
            assert len(answer.logprobs) == len(answer.ids)
            assert answer.ended == (answer.ids[-1] in stop_ids(tokenizer))
            assert answer.text == tokenizer.decode(answer.ids).strip()
            assert tokenizer.pad_id not in answer.ids
    assert {answer.ended for samples in answers for answer in samples} == {True, False}


def test_a_base_model_is_asked_in_completion_style_and_stops_at_the_end_of_the_line(tokenizer: Tokenizer) -> None:
    engine = Engine(tiny_model(vocab_size=tokenizer.vocab_size, max_seq_len=256), tokenizer)
    answers = sample_answers(
        engine, tokenizer, ROWS, temperature=2.0, max_new_tokens=80, seed=1, n=16, style="completion"
    )
    flat = [answer for samples in answers for answer in samples]
    assert all("\n" not in answer.text for answer in flat)
    broken = [answer for answer in flat if "\n" in tokenizer.decode(answer.ids)]
    assert broken
    assert all(answer.ended and "\n" not in tokenizer.decode(answer.ids[:-1]) for answer in broken)
