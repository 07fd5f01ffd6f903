"""Tokens, scores, health and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from ayni.engine.score import scores_of
from ayni.model.checkpoint import load_scalar
from ayni.serve.models import find_model, load_models
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.tokenizer import Tokenizer

from .tiny import CONTEXT, Live

TALK = [{"role": "user", "content": "on the"}, {"role": "assistant", "content": "yes, 12."}]


@pytest.fixture
def web(live: Live) -> httpx.Client:
    return httpx.Client(base_url=live.url, timeout=20)


def figures(web: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(web.get("/metrics").text)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_tokenize_and_back(web: httpx.Client, serve_tokenizer: Tokenizer) -> None:
    text = "on the 👍 [INST]"
    ids = serve_tokenizer.encode("on the 👍 ")
    answer = web.post("/tokenize", json={"prompt": "on the 👍 ", "add_special_tokens": False}).json()
    assert answer == {"tokens": ids, "count": len(ids), "max_model_len": CONTEXT, "token_strs": None}
    with_bos = web.post("/tokenize", json={"prompt": "on the 👍 "}).json()
    assert with_bos["tokens"] == [serve_tokenizer.bos_id, *ids]
    assert web.post("/detokenize", json={"tokens": with_bos["tokens"]}).json() == {"prompt": "on the 👍 "}
    marked = web.post("/tokenize", json={"prompt": text, "add_special_tokens": False, "return_token_strs": True}).json()
    assert marked["tokens"][-1] == serve_tokenizer.piece_id("[INST]")
    assert marked["token_strs"][-1] == "[INST]"
    assert web.post("/tokenize", json={"messages": TALK[:1]}).json()["tokens"] == encode_prompt(
        serve_tokenizer, TALK[:1]
    )
    assert web.post("/tokenize", json={"messages": TALK}).json()["tokens"] == encode_chat(serve_tokenizer, TALK)[0]
    for bad in ({}, {"prompt": "x", "messages": TALK}, {"messages": [TALK[1]]}):
        assert web.post("/tokenize", json=bad).status_code == 400
    assert web.post("/detokenize", json={"tokens": [-1]}).status_code == 400
    assert web.post("/detokenize", json={"tokens": [2**31 - 1]}).json() == {"prompt": ""}


def test_the_tokenizer_tells_lm_eval_what_it_asks_for(web: httpx.Client, serve_tokenizer: Tokenizer) -> None:
    info = web.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"], info["pad_token"]) == ("<s>", "</s>", "<pad>")
    assert info["model_max_length"] == CONTEXT
    assert "[INST]" in info["chat_template"]
    for name, wanted in (("bos_token", serve_tokenizer.bos_id), ("eos_token", serve_tokenizer.eos_id)):
        body = {"prompt": info[name], "add_special_tokens": False}
        assert web.post("/tokenize", json=body).json()["tokens"] == [wanted]
    assert web.get("/tokenizer_info", params={"model": "none"}).status_code == 404


def test_scores_are_the_reward_models(web: httpx.Client, serve_tokenizer: Tokenizer, reward_dir: Path) -> None:
    other = [TALK[0], {"role": "assistant", "content": "no"}]
    head = load_scalar(reward_dir)
    wanted = scores_of(head, [encode_chat(serve_tokenizer, talk)[0] for talk in (TALK, other)]).tolist()
    one = web.post("/v1/score", json={"model": "taste", "messages": TALK}).json()
    assert one["data"][0]["score"] == pytest.approx(wanted[0], rel=1e-4)
    assert one["usage"]["prompt_tokens"] == len(encode_chat(serve_tokenizer, TALK)[0])
    both = web.post("/v1/score", json={"input": [TALK, other]}).json()
    pairs = web.post("/v1/score", json={"text_1": "on the", "text_2": ["yes, 12.", "no"]}).json()
    for answer in (both, pairs):
        assert [entry["score"] for entry in answer["data"]] == pytest.approx(wanted, rel=1e-4)
        assert [entry["index"] for entry in answer["data"]] == [0, 1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": TALK, "input": [TALK]},
        {"text_1": "x"},
        {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]},
        {"messages": TALK[:1]},
        {"input": [TALK, TALK[:1]]},
        {"messages": [TALK[0], {"role": "assistant", "content": "on the " * 300}]},
    ],
)
def test_what_cannot_be_scored(web: httpx.Client, body: Any) -> None:
    answer = web.post("/v1/score", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_language_model_does_not_score_and_a_reward_model_does_not_talk(web: httpx.Client) -> None:
    assert web.post("/v1/score", json={"model": "little", "messages": TALK}).status_code == 404
    assert web.post("/v1/completions", json={"model": "taste", "prompt": "x"}).status_code == 404


def test_figures_count_what_was_done(web: httpx.Client) -> None:
    before = figures(web)
    body = {"messages": TALK[:1], "max_tokens": 5, "n": 2, "temperature": 0}
    answer = web.post("/v1/chat/completions", json=body).json()
    web.get("/nothing")
    web.get("/v1/models/none")
    grown = {name: value - before.get(name, 0) for name, value in figures(web).items()}
    assert grown["ayni_requests_total /v1/chat/completions 200"] == 1
    assert grown["ayni_requests_total /v1/models/{model} 404"] == 1
    assert grown["ayni_requests_total other 404"] == 1
    assert grown["ayni_generated_tokens_total little"] == answer["usage"]["completion_tokens"]
    assert grown["ayni_prompt_tokens_total little"] == answer["usage"]["prompt_tokens"]
    assert grown["ayni_first_token_seconds_count"] == 1
    assert grown["ayni_request_seconds_count /v1/chat/completions"] == 1
    assert figures(web)["ayni_running_sequences"] == figures(web)["ayni_waiting_sequences"] == 0
    assert figures(web)["ayni_open_requests"] == 1


def test_health_follows_the_worker(live: Live, web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert web.get("/health").json() == {"status": "ok"}
    monkeypatch.setattr(live.worker, "_stopping", True)
    assert web.get("/health").status_code == 503
    monkeypatch.undo()
    assert web.get("/health").status_code == 200


def test_ids_are_directory_names_made_unique(model_dir: Path, reward_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "little").symlink_to(model_dir)
    catalogue = load_models([model_dir, model_dir], [reward_dir], 2, 64, "cpu")
    first, second, reward = [model.id for model in catalogue.all]
    assert first.endswith("little")
    assert second == f"{first}-2"
    assert reward == "taste"
    assert [model.max_len for model in catalogue.language] == [64, 64]
    with pytest.raises(ValueError, match="expected a LlamaForCausalLM"):
        load_models([reward_dir], [], 2, None, "cpu")
    with pytest.raises(ValueError, match="neither a model directory"):
        find_model(tmp_path)


def test_weights_are_in_fp32(live: Live) -> None:
    (model,) = live.app.state.serving.catalogue.language
    assert model.engine.model.tok_embeddings.weight.dtype == torch.float32
