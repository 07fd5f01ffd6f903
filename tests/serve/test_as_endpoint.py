"""Our own server as a judge: what `ayni.evals.endpoint` asks, it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ayni.evals.endpoint import endpoint

from .tiny import Live


def test_it_is_an_endpoint_like_any_other(live: Live, tmp_path: Path) -> None:
    asking = endpoint(f"{live.url}#little", tmp_path / "answers.jsonl", max_tokens=12)
    prompts = [[{"role": "user", "content": text}] for text in ("one", "two", "one")]
    first = asking.answers(prompts)
    assert first[0] == first[2]
    assert any(first)
    assert endpoint(f"{live.url}/v1#little", max_tokens=12).answers(prompts) == first
    with pytest.raises(ValueError, match="Does it serve 'large'"):
        endpoint(f"{live.url}#large").answers(prompts)
