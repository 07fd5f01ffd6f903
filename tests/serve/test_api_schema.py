"""schemathesis makes requests of the OpenAPI document, good and bad ones: no 5xx, and every answer as documented."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ayni.serve.app import create_app

from .tiny import running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
]


OPERATIONS = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/score"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/tokenizer_info"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def schema(model_dir: Path, reward_dir: Path) -> Iterator[schemathesis.BaseSchema]:
    with running(create_app([model_dir], [reward_dir], max_len=24)) as live:
        # Some made-up bodies are too large for the server, and its 413 is a refusal like the others.
        refusals = {"negative_data_rejection": {"expected-statuses": [400, 404, 413]}}
        config = schemathesis.Config.from_dict({"checks": refusals})
        yield schemathesis.openapi.from_url(f"{live.url}/openapi.json", config=config)
        assert live.rests()


def test_every_operation_is_tried(schema: schemathesis.BaseSchema) -> None:
    documented = [result.ok() for result in schema.get_all_operations()]
    assert sorted((operation.method.upper(), operation.path) for operation in documented) == sorted(OPERATIONS)


def try_out(schema: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode, examples: int) -> None:
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return  # nothing in such a request can be unfit

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            aim(path, case.body)
        case.call_and_validate(checks=CHECKS, timeout=20)

    run()


def aim(path: str, body: dict[str, Any]) -> None:
    """Most made-up names and dialogues are refused at once; these get as far as the model."""
    body.pop("model", None)
    if path == "/v1/chat/completions" and body.get("messages"):
        body["messages"] = [{**body["messages"][0], "role": "user"}]
        for refused in ("tools", "functions", "tool_choice", "response_format", "logit_bias"):
            body.pop(refused, None)


MODES = pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfit"])


@MODES
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_documented(
    schema: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    try_out(schema, method, path, mode, examples=4)


@pytest.mark.slow
@MODES
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_documented_at_length(
    schema: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    try_out(schema, method, path, mode, examples=300)


def test_a_million_mistakes_are_refused_at_the_first(model_dir: Path) -> None:
    with running(create_app([model_dir])) as live:
        body = '{"max_tokens": 1, "prompt": [' + ",".join(["{}"] * 10**6) + "]}"
        began = time.monotonic()
        answer = httpx.post(f"{live.url}/v1/completions", content=body, headers={"Content-Type": "application/json"})
        seconds = time.monotonic() - began
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "prompt"
        assert seconds < 3
