"""The API through the official client: what it sends, what it reads, which of its exceptions it raises."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from ayni.engine.engine import Engine, Request
from ayni.model.checkpoint import load_model
from ayni.serve.app import create_app
from ayni.text.dialogue import encode_prompt, stop_ids
from ayni.text.tokenizer import Tokenizer

from .tiny import CONTEXT, running

ASK: list[Any] = [{"role": "user", "content": "Tell me something."}]


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**({"model": "little", "messages": ASK, "max_tokens": 24} | fields))


def complete(client: openai.OpenAI, **fields: Any) -> Any:
    return client.completions.create(**({"model": "little", "prompt": "on the", "max_tokens": 24} | fields))


def streamed(chunks: Iterable[Any]) -> tuple[dict[int, str], dict[int, str], Any]:
    """(text, finish reason) of each choice, and the usage."""
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            new = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (new or "")
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    return texts, ends, usage


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    entries = {model.id: model for model in client.models.list()}
    assert {name: model.kind for name, model in entries.items()} == {"little": "language", "taste": "reward"}
    assert entries["little"].max_model_len == CONTEXT
    assert client.models.retrieve("little") == entries["little"]


def test_a_greedy_chat_is_what_the_engine_says(
    client: openai.OpenAI, model_dir: Path, serve_tokenizer: Tokenizer
) -> None:
    prompt = encode_prompt(serve_tokenizer, ASK)
    stops = stop_ids(serve_tokenizer)
    engine = Engine(load_model(model_dir), serve_tokenizer)
    (wanted,) = engine.generate([Request(prompt, 24, temperature=0.0, stop_ids=stops)])[0]
    answer = chat(client, temperature=0)
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(wanted.ids)
    assert answer.choices[0].finish_reason == wanted.finish
    text = serve_tokenizer.decode([token for token in wanted.ids if token not in stops])
    assert answer.choices[0].message.content == text.strip()
    assert answer.choices[0].message.role == "assistant"
    assert answer.system_fingerprint.startswith("fp_")


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_joined_is_the_whole_answer(client: openai.OpenAI, seed: int) -> None:
    fields = {"temperature": 1.5, "seed": seed, "n": 3, "max_tokens": 60}
    whole = chat(client, **fields)
    texts, ends, usage = streamed(chat(client, **fields, stream=True, stream_options={"include_usage": True}))
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage == whole.usage
    plain = complete(client, **fields)
    texts, ends, _ = streamed(complete(client, **fields, stream=True))
    assert texts == {choice.index: choice.text for choice in plain.choices}
    assert ends == {choice.index: choice.finish_reason for choice in plain.choices}


def test_a_seed_gives_the_same_answers_and_no_seed_others(client: openai.OpenAI) -> None:
    def texts(**fields: Any) -> list[str]:
        return [choice.message.content for choice in chat(client, n=3, **fields).choices]

    once = texts(seed=-5)
    assert once == texts(seed=-5)
    assert len(set(once)) == 3
    assert once != texts(seed=6)
    assert texts() != texts()


def test_a_stop_string_ends_the_text_in_front_of_it(client: openai.OpenAI) -> None:
    free = complete(client, temperature=0, max_tokens=60).choices[0].text
    stop = free[20:23]
    at = free.find(stop)
    for fields in ({"stop": stop}, {"stop": ["never said", stop]}):
        stopped = complete(client, temperature=0, max_tokens=60, logprobs=1, **fields)
        assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (free[:at], "stop")
        assert max(stopped.choices[0].logprobs.text_offset) < at
        texts, ends, _ = streamed(complete(client, temperature=0, max_tokens=60, stream=True, **fields))
        assert (texts, ends) == ({0: free[:at]}, {0: "stop"})


def test_chat_logprobs_name_every_token_of_the_text(client: openai.OpenAI) -> None:
    answer = chat(client, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    entries = answer.logprobs.content
    joined = b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace").strip()
    # Decoders differ in how many marks they write for several broken bytes.
    assert re.sub("\ufffd+", "\ufffd", joined) == re.sub("\ufffd+", "\ufffd", answer.message.content)
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob, abs=1e-5)
    chunks = chat(client, temperature=0, logprobs=True, top_logprobs=3, stream=True)
    found = [
        entry for chunk in chunks for choice in chunk.choices if choice.logprobs for entry in choice.logprobs.content
    ]
    assert found == entries


def test_completion_logprobs_with_echo_are_the_models(
    client: openai.OpenAI, model_dir: Path, serve_tokenizer: Tokenizer
) -> None:
    prompts = [[serve_tokenizer.bos_id, *serve_tokenizer.encode(text)] for text in ("on the", "12 + 34 = 46\tyes")]
    answer = complete(client, prompt=prompts, echo=True, logprobs=2, temperature=0, max_tokens=5)
    assert [choice.index for choice in answer.choices] == [0, 1]
    model = load_model(model_dir)
    for prompt, choice in zip(prompts, answer.choices):
        known = choice.logprobs
        text = serve_tokenizer.decode(prompt)
        assert choice.text.startswith(text)
        assert len(known.tokens) == len(known.token_logprobs) == len(known.top_logprobs) == len(prompt) + 5
        with torch.no_grad():
            logp = model(torch.tensor([prompt]))[0].log_softmax(-1)
        wanted = [float(logp[at, token]) for at, token in enumerate(prompt[1:])]
        assert known.token_logprobs[0] is None
        assert known.token_logprobs[1 : len(prompt)] == pytest.approx(wanted, abs=2e-4)
        for own, top in zip(known.token_logprobs[1:], known.top_logprobs[1:]):
            assert 2 <= len(top) <= 3
            assert own in top.values()
        for own, top in zip(known.token_logprobs[len(prompt) :], known.top_logprobs[len(prompt) :]):
            assert own == max(top.values())  # as lm-eval asks whether an answer is the greedy one
        assert known.text_offset[0] == 0
        assert known.text_offset[len(prompt)] == len(text)
    silent = complete(client, prompt=prompts[0], echo=True, logprobs=1, max_tokens=0).choices[0]
    assert silent.text == serve_tokenizer.decode(prompts[0])
    assert silent.logprobs.token_logprobs == answer.choices[0].logprobs.token_logprobs[: len(prompts[0])]


def test_prompts_in_four_shapes(client: openai.OpenAI, serve_tokenizer: Tokenizer) -> None:
    texts = ["on the", "yes"]
    ids = [[serve_tokenizer.bos_id, *serve_tokenizer.encode(text)] for text in texts]
    by_text, by_ids = (complete(client, prompt=prompt, temperature=0, n=2) for prompt in (texts, ids))
    assert [choice.text for choice in by_text.choices] == [choice.text for choice in by_ids.choices]
    assert [choice.index for choice in by_text.choices] == [0, 1, 2, 3]
    for prompt in (texts[0], ids[0]):
        assert complete(client, prompt=prompt, temperature=0).choices[0].text == by_text.choices[0].text
    assert complete(client, prompt="").usage.prompt_tokens == 1


def test_a_client_hears_of_the_context_with_its_counts(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=rf"holds {CONTEXT} tokens.*asks for 200"):
        chat(client, max_tokens=200)
    with pytest.raises(openai.BadRequestError, match=rf"context holds {CONTEXT} tokens") as caught:
        chat(client, messages=[{"role": "user", "content": "on the " * 400}])
    assert caught.value.code == "context_length_exceeded"
    assert len(str(caught.value)) < 500
    rest = chat(client, temperature=0, max_tokens=None)
    assert rest.usage.total_tokens == CONTEXT or rest.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": [*ASK, *ASK]}, "messages 1 and 2 are both by the user"),
        ({"messages": [*ASK, {"role": "assistant", "content": "Yes."}]}, "the last message is by the assistant"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "role"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n: "),
        ({"n": 129}, "n: "),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not supported"),
    ],
)
def test_bad_fields_are_named(client: openai.OpenAI, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        chat(client, **fields)
    assert caught.value.type == "invalid_request_error"


def test_what_only_describes_a_request_is_ignored(client: openai.OpenAI) -> None:
    harmless = {"user": "someone", "store": False, "metadata": {"a": "b"}, "presence_penalty": 0, "logit_bias": {}}
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "something."}]
    assert chat(client, temperature=0, **harmless).choices == chat(client, temperature=0).choices
    assert (
        chat(client, temperature=0, messages=[{"role": "user", "content": parts}]).choices
        == chat(client, temperature=0).choices
    )
    system, developer = (
        chat(client, temperature=0, messages=[{"role": role, "content": "Be kind."}, *ASK]).choices
        for role in ("system", "developer")
    )
    assert system == developer


def test_unknown_models_are_not_found(client: openai.OpenAI) -> None:
    for name in ("large", "taste", "x" * 200):
        with pytest.raises(openai.NotFoundError, match="known: little") as caught:
            chat(client, model=name)
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("large")


def test_a_full_queue_asks_to_come_again(model_dir: Path) -> None:
    with running(create_app([model_dir], max_rows=1, max_queue=1)) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0)
        running_one = chat(client, max_tokens=None, temperature=0, n=3, stream=True)
        next(iter(running_one))
        waiting = client.with_options(timeout=30)
        late = threading.Thread(target=lambda: chat(waiting), daemon=True)
        late.start()
        until = time.monotonic() + 10
        while not live.worker._queued["little"] and time.monotonic() < until:
            time.sleep(0.001)
        assert live.worker._queued["little"] == 1
        with pytest.raises(openai.RateLimitError, match="as many requests wait") as caught:
            chat(client)
        assert caught.value.response.headers["Retry-After"] == "1"
        running_one.close()
        late.join(20)
        assert live.rests()
        assert chat(client).choices


def test_with_a_key_only_its_bearers_are_served(model_dir: Path) -> None:
    with running(create_app([model_dir], api_key="s3cret")) as live:
        for key in ("wrong", "s3cre", "s3cret2"):
            client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)
            with pytest.raises(openai.AuthenticationError, match="incorrect API key"):
                client.models.list()
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="s3cret", max_retries=0)
        assert [model.id for model in client.models.list()] == ["little"]


def test_a_completion_goes_on_where_the_prompt_ends(client: openai.OpenAI, serve_tokenizer: Tokenizer) -> None:
    """Prompt and text, joined, are the text of all ids: the first word keeps the space in front of it."""
    spaced = ended = 0
    for prompt in ("on the", "a bee", "the ant saw", "hill"):
        for seed in range(6):
            fields = {"prompt": prompt, "seed": seed, "temperature": 1.5, "max_tokens": 6, "logprobs": 1}
            answer = complete(client, echo=True, **fields)
            whole = answer.choices[0]
            ids = serve_tokenizer.encode(prompt)
            assert (
                len(whole.logprobs.tokens) == len(ids) + 1 + answer.usage.completion_tokens
            )  # BOS; the end token, too
            ended += whole.logprobs.tokens[-1] == "</s>"
            first = "".join(whole.logprobs.tokens[len(ids) + 1 :][:1]).removesuffix("</s>")
            assert whole.text == prompt + complete(client, **fields).choices[0].text
            assert whole.text.startswith(prompt + first) or "\ufffd" in whole.text
            spaced += first.startswith(" ")
    assert spaced
    assert ended
