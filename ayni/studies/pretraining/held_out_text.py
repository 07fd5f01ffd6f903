"""What a model makes of text and prompts that it never trained on, unit by unit: for studies that compare base models.

loss of a document  -1/C sum_t log p(x_t | BOS, x_{<t})       C: its characters, so that tokenizers can differ
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ayni.engine.answers import row_seed
from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.engine.score import log_probs_of
from ayni.model.checkpoint import load_model
from ayni.model.transformer import Transformer
from ayni.studies.lab import Lab
from ayni.studies.verdicts import Values
from ayni.text.dialogue import encode_prompt, stop_ids
from ayni.text.sources import read_texts
from ayni.text.tokenizer import load_tokenizer

ANSWER = 20  # tokens: the world's plain answers end before


def losses(model: Path, data: Path) -> Values:
    """Nats per character of each held-out document: all of them as `loss`, and each source's as `loss SOURCE`."""
    tokenizer, transformer = load_tokenizer(model), load_model(model)
    longest = transformer.settings.max_seq_len - 3  # characters: a token is one at least
    texts = {
        (file.stem, f"{file.stem} {i}"): text[:longest]
        for file in sorted((data / "corpus_heldout").glob("*.jsonl"))
        for i, text in enumerate(read_texts(file))
    }
    ids = tokenizer.encode_all(list(texts.values()))
    logp = log_probs_of(transformer, [[tokenizer.bos_id]] * len(ids), ids)
    values: Values = {}
    for ((source, document), text), logp_L in zip(texts.items(), logp, strict=True):
        for name in ("loss", f"loss {source}"):
            values.setdefault(name, {})[document] = -float(logp_L.sum()) / len(text)
    return values


def position_losses(model: Transformer, documents: Sequence[list[int]], until: int) -> list[list[float]]:
    """-log p of each document's tokens 1 .. until - 1, given as many tokens before it as the model's context holds."""
    T = model.settings.max_seq_len
    within = log_probs_of(
        model, [ids[:1] for ids in documents], [ids[1 : min(T, until)] for ids in documents], row_len=T
    )
    beyond = [(d, p) for d, ids in enumerate(documents) for p in range(T, min(len(ids), until))]
    alone = log_probs_of(
        model,
        [documents[d][p + 1 - T : p] for d, p in beyond],
        [[documents[d][p]] for d, p in beyond],
        row_len=T,
    ) if beyond else []  # fmt: skip
    found = [(-logp_L).tolist() for logp_L in within]
    for (d, _), logp_1 in zip(beyond, alone, strict=True):
        found[d].append(-float(logp_1))
    return found


@torch.no_grad()
def right(lab: Lab, data: Path, model: Path, rows: Sequence[dict[str, Any]], samples: int) -> dict[str, float]:
    """Share of right ones, by the examiner, among `samples` answers to each prompt.

    A prompt that leaves no room for an answer in the model's context loses its beginning.
    """
    tokenizer, transformer = load_tokenizer(model), load_model(model)
    longest = transformer.settings.max_seq_len - ANSWER
    requests = [
        Request(
            prompt=encode_prompt(tokenizer, row["messages"])[-longest:],
            max_new_tokens=ANSWER,
            temperature=lab.recipe.evaluate.temperature,
            seed=row_seed(lab.seed, row["id"]),
            n=samples,
            stop_ids=stop_ids(tokenizer),
        )
        for row in rows
    ]
    judge, shares = lab.judge(data), {}
    for row, completions in zip(rows, Engine(transformer, tokenizer).generate(requests), strict=True):
        verdicts = judge.judge(row, [tokenizer.decode(completion.ids).strip() for completion in completions])
        shares[row["id"]] = sum(bool(verdict.right) for verdict in verdicts) / samples
    return shares
