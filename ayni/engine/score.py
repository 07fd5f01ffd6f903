"""Scoring given text with the *training* forward pass, without gradients: what PPO, evaluations and servers ask for.

Old log-probabilities come from here, not from the sampler, so that with a learning rate of 0 every PPO ratio is 1
(TRAPS 2). Shape letters: R packed rows, T tokens of a row, N sequences, D width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ayni.engine.request import Top
from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer
from ayni.telemetry import ProgressBar
from ayni.train.batches import Packed, pack
from ayni.train.output import log_probs_of_targets

FORWARD_TOKENS = 8192  # packed tokens of one forward pass
CHUNK_LOGITS = 2**23  # logits held at once where every token of a prompt is scored: 32 MiB in fp32


@dataclass(frozen=True)
class PromptLogProbs:
    """log_softmax(logits) at each token after the first; `top` likewise, empty if none were asked for."""

    logprobs: list[float]
    top: list[Top]


@torch.no_grad()
def log_probs_of(
    model: Transformer,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    temperature: float = 1.0,
    row_len: int | None = None,
) -> list[Float[Tensor, " L"]]:
    """log_softmax(logits / T)[token] for each token of each answer, given its prompt and the answer so far.

    The same convention as `Completion.logprobs` (TRAPS 1), T = 0 (greedy) included: log_softmax(logits) there.
    """
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    masks = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in zip(prompts, answers)]
    packed = pack(sequences, row_len or _row_len(model, sequences), pad_id=0, loss_masks=masks)
    parts = []
    for rows in _forward_passes(packed):
        batch = packed[rows].to(model.tok_embeddings.weight.device)
        weight = model.tok_embeddings.weight
        head = partial(log_probs_of_targets, targets_N=batch.targets_N, temperature=temperature or 1.0)
        parts.append(
            model(batch.tokens_RT, batch.positions_RT, batch.attention(weight), keep_N=batch.predict_N, head=head)
        )
    # The parts run through the rows from left to right; each sequence gets its stretch back.
    in_rows = sorted(range(len(sequences)), key=lambda index: packed.where[index])
    stretches = torch.cat(parts).split([len(answers[index]) for index in in_rows])
    return [stretch for _, stretch in sorted(zip(in_rows, stretches), key=lambda pair: pair[0])]


@torch.no_grad()
def scores_of(
    model: ScalarHead, sequences: Sequence[list[int]], row_len: int | None = None, bar: ProgressBar | None = None
) -> Float[Tensor, " N"]:
    """The reward model's raw score of each sequence, read at its last token (TRAPS 12). `bar` counts sequences."""
    packed = pack(sequences, row_len or _row_len(model, sequences), pad_id=0)
    score_N = torch.empty(len(sequences), device=model.score.weight.device)
    for rows in _forward_passes(packed):
        batch = packed[rows].to(score_N.device)
        here = [index for index, (row, _, _) in enumerate(packed.where) if rows.start <= row < rows.stop]
        score_N[here] = model(
            batch.tokens_RT, batch.positions_RT, batch.attention(next(model.parameters())), keep_N=batch.ends_N
        ).float()
        if bar is not None:
            bar.advance(len(here))
    return score_N


@torch.inference_mode()
def prompt_log_probs(model: Transformer, sequences: Sequence[list[int]], top: int = 0) -> list[PromptLogProbs]:
    """How likely each token of each text was after those before it, and the `top` likeliest tokens in its place.

    One text at a time, its logits in chunks: [T, V] of a long prompt is never held whole. A text of one token has none.
    """
    vocab_size, longest = model.settings.vocab_size, model.settings.max_seq_len
    for number, ids in enumerate(sequences):
        for good, problem in (
            (0 < len(ids) <= longest, f"it has {len(ids)} tokens; give 1 to {longest}"),
            (all(0 <= id < vocab_size for id in ids), f"it holds an id that is not among 0 to {vocab_size - 1}"),
            (top <= vocab_size, f"top is {top}, and the vocabulary has {vocab_size} tokens"),
        ):
            if not good:
                raise ValueError(f"sequence {number}: {problem}")
    return [_prompt_log_probs(model, ids, top) for ids in sequences]


def _prompt_log_probs(model: Transformer, ids: list[int], top: int) -> PromptLogProbs:
    assert model.output is not None
    if len(ids) == 1:
        return PromptLogProbs([], [])
    token_T = torch.tensor(ids, device=model.tok_embeddings.weight.device)
    h_TD = model(token_T[None, :-1], head=False)[0]
    logprobs: list[float] = []
    ranked: list[Top] = []
    chunk = max(1, CHUNK_LOGITS // model.settings.vocab_size)
    for h_CD, target_C in zip(h_TD.split(chunk), token_T[1:].split(chunk)):
        logits_CV = model.output(h_CD).float()
        total_C1 = logits_CV.logsumexp(1, keepdim=True)
        logprobs += (logits_CV.gather(1, target_C.unsqueeze(1)) - total_C1).squeeze(1).tolist()
        if top:
            best_CK, id_CK = logits_CV.topk(top, dim=1)
            ranked += [list(zip(*pair)) for pair in zip(id_CK.tolist(), (best_CK - total_C1).tolist())]
    return PromptLogProbs(logprobs, ranked)


def _row_len(model: Transformer | ScalarHead, sequences: Sequence[list[int]]) -> int:
    """Short rows: a block-causal mask computes T^2 scores however short the sequences are.

    Twice the longest sequence leaves little padding; a sequence beyond the context is refused by `pack`.
    """
    return min(model.settings.max_seq_len, 2 * max(map(len, sequences), default=1))


def _forward_passes(packed: Packed) -> Iterator[slice]:
    T = packed.tokens_RT.shape[1]
    size = max(1, FORWARD_TOKENS // T)
    for start in range(0, len(packed), size):
        yield slice(start, min(start + size, len(packed)))
