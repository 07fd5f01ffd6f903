"""Runs inside llama-cpp-python's environment: one JSON request on standard input, one JSON answer on standard output.

Request: model (a GGUF's path), context (tokens), texts, dialogues, prompts (lists of ids), new_tokens. Answer: tokens (ids of each text),
chats (ids of each dialogue, through the file's own chat template), decoded (bytes of each text's ids, in hex), answers
(one list per prompt of each greedy step's likeliest (id, logit) pairs, the first of which is the id taken).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from llama_cpp import GGML_TYPE_F32, Llama, llama_get_logits_ith
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

TOP = 8


def greedy(llama: Llama, prompt: list[int], new_tokens: int) -> list[list[tuple[int, float]]]:
    llama.reset()
    steps, given = [], prompt
    for _ in range(new_tokens):
        llama.eval(given)
        logits = np.ctypeslib.as_array(llama_get_logits_ith(llama.ctx, -1), shape=(llama.n_vocab(),))
        best = np.argsort(-logits, kind="stable")[:TOP]
        steps.append([(int(i), float(logits[i])) for i in best])
        given = [int(best[0])]
    return steps


def chat(llama: Llama, dialogue: list[dict[str, str]]) -> list[int]:
    """As llama-cpp-python's own create_chat_completion: the template's text, special tokens in it read as such."""
    template = llama.metadata["tokenizer.chat_template"]
    names = {key: llama.detokenize([number], special=True).decode() for key, number in specials(llama).items()}
    shown = Jinja2ChatFormatter(template, **names)(messages=dialogue)
    return llama.tokenize(shown.prompt.encode(), add_bos=not shown.added_special, special=True)


def specials(llama: Llama) -> dict[str, int]:
    return {"bos_token": llama.token_bos(), "eos_token": llama.token_eos()}


def run(request: dict[str, Any]) -> dict[str, Any]:
    # Keys and values in fp32: the default rounds them to F16, as our fp32 engine does not.
    wide = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
    llama = Llama(request["model"], n_ctx=request["context"], n_threads=1, verbose=False, **wide)
    tokens = [llama.tokenize(text.encode(), add_bos=False, special=False) for text in request["texts"]]
    return {
        "tokens": tokens,
        "decoded": [llama.detokenize(ids).hex() for ids in tokens],
        "chats": [chat(llama, dialogue) for dialogue in request["dialogues"]],
        "answers": [greedy(llama, prompt, request["new_tokens"]) for prompt in request["prompts"]],
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
