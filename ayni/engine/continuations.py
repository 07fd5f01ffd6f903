"""How likely given continuations are after given contexts: what multiple-choice evaluations ask.

Pairs that make the model read the same tokens (answers of one token to one question: "A", "B", "C", "D") are read once.
Shape letters as in score.py; P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ayni.engine.score import CHUNK_LOGITS, FORWARD_TOKENS
from ayni.model.transformer import Transformer
from ayni.train.batches import pack


@dataclass(frozen=True)
class Likelihood:
    """sum_t log p(y_t | x, y_<t) in nats, and whether every y_t is the likeliest token in its place."""

    log_prob: float
    is_greedy: bool


def read_by_model(context: Sequence[int], continuation: Sequence[int], max_seq_len: int) -> tuple[int, ...]:
    """The tokens whose forward pass predicts the continuation: all but the last, the earliest cut where the context is full."""
    return tuple([*context, *continuation][-(max_seq_len + 1) : -1])


@torch.no_grad()
def likelihoods(model: Transformer, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Likelihood]:
    """The likelihood of each continuation y after its context x, both in ids and neither empty.

    ValueError where a continuation alone is longer than the model's context.
    """
    longest = model.settings.max_seq_len
    for number, (context, continuation) in enumerate(pairs):
        assert context, "a context holds one token at least: BOS"
        assert continuation, "there is nothing to score"
        if len(continuation) > longest:
            raise ValueError(
                f"pair {number}: its continuation has {len(continuation)} tokens and the model reads {longest}"
            )
    if not pairs:
        return []
    inputs: dict[tuple[int, ...], int] = {}
    input_P = [inputs.setdefault(read_by_model(x, y, longest), len(inputs)) for x, y in pairs]
    packed = pack([list(ids) for ids in inputs], min(longest, 2 * max(map(len, inputs))), pad_id=0)
    rows_per_pass = max(1, FORWARD_TOKENS // packed.tokens_RT.shape[1])
    device = model.tok_embeddings.weight.device
    out: list[Likelihood | None] = [None] * len(pairs)
    for first in range(0, len(packed), rows_per_pass):
        batch = packed[first : first + rows_per_pass].to(device)
        T = batch.tokens_RT.shape[1]
        here = [p for p, number in enumerate(input_P) if first <= packed.where[number][0] < first + len(batch)]
        places: list[int] = []
        targets: list[int] = []
        sizes = []
        for p in here:
            row, start, length = packed.where[input_P[p]]
            end, y = (row - first) * T + start + length, pairs[p][1]
            places += range(end - len(y), end)
            targets += y
            sizes.append(len(y))
        found_N2 = model(
            batch.tokens_RT,
            batch.positions_RT,
            batch.attention(model.tok_embeddings.weight),
            keep_N=torch.tensor(places, device=device),
            head=_Targets(torch.tensor(targets, device=device)),
        )
        for p, of_pair in zip(here, found_N2.split(sizes)):
            out[p] = Likelihood(float(of_pair[:, 0].double().sum()), bool(of_pair[:, 1].all()))
    return [found for found in out if found is not None]


@dataclass(frozen=True)
class _Targets:
    """A head that gives (log p, is the argmax) of each target; logits are held a chunk at a time."""

    targets_N: Int[Tensor, " N"]

    def __call__(self, h_ND: Float[Tensor, "N D"], weight_VD: Float[Tensor, "V D"]) -> Float[Tensor, "N 2"]:
        parts = []
        size = max(1, CHUNK_LOGITS // len(weight_VD))
        for h_CD, target_C in zip(h_ND.split(size), self.targets_N.split(size)):
            logits_CV = F.linear(h_CD, weight_VD).float()
            logp_C = logits_CV.gather(1, target_C.unsqueeze(1)).squeeze(1) - logits_CV.logsumexp(1)
            parts.append(torch.stack([logp_C, (logits_CV.argmax(1) == target_C).float()], 1))
        return torch.cat(parts)
