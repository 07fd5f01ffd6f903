"""Attention told where sequences lie: the same as the block-causal mask, and as every sequence alone (TRAPS 11)."""

from __future__ import annotations

import pytest
import torch

from ayni.config import ModelSettings
from ayni.engine.score import log_probs_of
from ayni.model.transformer import Spans, Transformer, init_weights
from ayni.train.batches import pack


def model(kv_heads: int) -> Transformer:
    made = Transformer(ModelSettings(vocab_size=61, dim=32, n_layers=2, n_heads=4, n_kv_heads=kv_heads, ffn_dim=48))
    init_weights(made, 0, std=0.2)
    return made


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_spans_equal_the_mask_and_each_sequence_alone_with_gradients(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(1, 61, (n,), generator=generator).tolist() for n in (40, 7, 90, 33, 1, 60, 100)]
    packed = pack(sequences, 128, pad_id=0)
    assert sum(packed.spans.sizes) == packed.tokens_RT.numel()
    made = model(kv_heads)
    gradients = []
    for mask in (packed.spans, packed.mask_RTT):
        made.zero_grad()
        logits_NV = made(packed.tokens_RT, packed.positions_RT, mask, keep_N=packed.predict_N)
        torch.nn.functional.cross_entropy(logits_NV, packed.targets_N, reduction="sum").backward()
        gradients.append([p.grad.clone() for p in made.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(made.parameters()))
    for found, wanted in zip(*gradients):
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()
    h_RTD = made(packed.tokens_RT, packed.positions_RT, packed.spans, head=False)
    for ids, (row, start, length) in zip(sequences, packed.where):
        alone = made(torch.tensor([ids]), head=False)[0]
        assert torch.allclose(h_RTD[row, start : start + length], alone, atol=1e-5)


def test_short_sequences_keep_the_mask_in_fp32_and_single_ones_need_none() -> None:
    weight = torch.zeros(1)
    assert isinstance(pack([[1, 2, 3]] * 8, 16, 0).attention(weight), torch.Tensor)
    assert isinstance(pack([[1, 2, 3]] * 8, 16, 0).attention(weight.bfloat16()), Spans)
    assert pack([[1] * 10, [2] * 12], 12, 0).attention(weight) is None
    assert isinstance(pack([[1] * 100, [2] * 120], 256, 0).attention(weight), Spans)


def test_in_bf16_a_sequence_scores_the_same_to_the_bit_wherever_it_lies() -> None:
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(1, 61, (n,), generator=generator).tolist() for n in (40, 9, 90, 33, 12, 60, 100, 25)]
    made = model(2).bfloat16()
    answers = [ids[len(ids) // 3 :] for ids in sequences]
    prompts = [ids[: len(ids) // 3] for ids in sequences]
    wanted = [log_probs_of(made, [p], [a], 1.3)[0] for p, a in zip(prompts, answers)]
    for row_len in (100, 128, 370):
        for found, alone in zip(log_probs_of(made, prompts, answers, 1.3, row_len), wanted):
            assert torch.equal(found, alone)
