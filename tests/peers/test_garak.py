"""garak's OpenAI-compatible generator against `ayni serve`: one small probe, every answer the one our engine gives.

.venv/bin/python -m pytest tests/peers/test_garak.py -rP
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.model.checkpoint import load_model
from ayni.text.dialogue import encode_prompt, stop_ids
from ayni.text.tokenizer import load_tokenizer
from bench.environments import run_peer

from .serving import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PROBE = "test.Test"  # eight strings: an empty one, Chinese, quotes, a backslash
NEW_TOKENS = 32
STOP = ["#", ";"]  # garak's own default


def probe(server: Server, work: Path) -> list[dict[str, Any]]:
    """The finished attempts in the report of a garak run that ended well."""
    options = {"uri": f"{server.url}/v1/", "temperature": 0.0, "max_tokens": NEW_TOKENS}
    (work / "options.json").write_text(json.dumps({"openai": {"OpenAICompatible": options}}))
    command = ["-m", "garak", "--target_type", "openai.OpenAICompatible", "--target_name", server.model]
    command += ["--generator_option_file", work / "options.json", "--spec", f"probes.{PROBE}", "--generations", "1"]
    command += ["--parallel_attempts", "4", "--report_prefix", work / "found"]
    homes = {f"XDG_{kind}_HOME": str(work / kind) for kind in ("DATA", "CONFIG", "CACHE")}
    done = run_peer("garak", *command, timeout=900, OPENAICOMPATIBLE_API_KEY="unused", **homes)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = map(json.loads, (work / "found.report.jsonl").read_text().splitlines())
    return [row for row in rows if row["entry_type"] == "attempt" and row["status"] == 2]


def our_answers(model: Path, texts: list[str]) -> list[str]:
    tokenizer = load_tokenizer(model)
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    ends = stop_ids(tokenizer)
    requests = [Request(ids, NEW_TOKENS, 0.0, stop_ids=ends, stop_strings=tuple(STOP)) for ids in prompts]
    answers = [tokenizer.decode(answer.ids) for (answer,) in Engine(load_model(model), tokenizer).generate(requests)]
    return [min((text.split(stop)[0] for stop in STOP), key=len) for text in answers]


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_a_probe_is_answered(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    model = request.getfixturevalue(name)
    with serving(model, tmp_path / "server.log") as server:
        attempts = probe(server, tmp_path)
        answered = server.answered()
    texts = [attempt["prompt"]["turns"][-1]["content"]["text"] for attempt in attempts]
    found = [[output["text"] for output in attempt["outputs"]] for attempt in attempts]
    print(f"garak, {PROBE} on {name}: exit code 0, {len(attempts)} attempts, {answered} answers by our server")
    for text, (answer,) in zip(texts, found):
        print(f"  {text!r} -> {answer[:70]!r}")
    assert len(attempts) == answered == 8
    assert found == [[answer] for answer in our_answers(model, texts)]
