"""The rows' definitions, the costs counted by hand, and the sampler that llama.cpp's side draws with."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ayni.config import ModelSettings
from ayni.model import Transformer
from bench import costs
from bench.growth import SIZES, SMOLLM2, with_deviations
from bench.rows import workloads
from bench.rows.rollout import LONGEST, SAMPLES, SHORTEST, limits
from bench.rows.training import same_losses

SMALL = ModelSettings(vocab_size=512, dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=160, tie_embeddings=True)


def test_every_row_is_well_defined() -> None:
    rows = [f"{workload.name}/{against.side.name}" for workload in workloads() for against in workload.peers]
    assert len(set(rows)) == len(rows)
    assert all(len(workload.digest()) == 16 for workload in workloads())


def test_answer_lengths_are_spread_and_always_alike() -> None:
    found = limits(64)
    assert found == limits(64)
    flat = sorted(limit for per_prompt in found for limit in per_prompt)
    assert (len(flat), flat[0], flat[-1]) == (64 * SAMPLES, SHORTEST, LONGEST)
    assert sum(flat) / len(flat) == pytest.approx((SHORTEST + LONGEST) / 2, abs=0.1)


def test_losses_that_part_ways_are_refused() -> None:
    same_losses({"ayni": {"losses": [3.0, 2.9]}, "peer": {"losses": [3.005, 2.905]}})
    with pytest.raises(ValueError, match="not the same training"):
        same_losses({"ayni": {"losses": [3.0, 2.9]}, "peer": {"losses": [3.0, 2.95]}})


@pytest.mark.parametrize("settings", [SMALL, SMALL.model_copy(update={"tie_embeddings": False})])
def test_matrix_parameters_are_the_models_own(settings: ModelSettings) -> None:
    with torch.device("meta"):
        model = Transformer(settings)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "tok_embeddings" not in name)
    if settings.tie_embeddings:
        matrices += settings.vocab_size * settings.dim
    assert costs.matrix_parameters(settings) == matrices


def test_flops_are_those_that_torch_counts() -> None:
    """torch counts attention in full, we count the causal half."""
    model, T = Transformer(SMALL), 48
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(3, T, dtype=torch.int64)).sum().backward()
    counted = counter.get_flop_counts()["Global"]
    products = sum(flops for operation, flops in counted.items() if str(operation) in ("aten.mm", "aten.addmm"))
    width = SMALL.n_heads * SMALL.d_head
    attention = 3 * 4 * SMALL.n_layers * width * 3 * T * T / 2
    assert costs.training_flops(SMALL, [T] * 3) - attention == products


def test_weight_bytes_count_shared_weights_once() -> None:
    model = Transformer(SMALL).to(torch.bfloat16)
    assert costs.weight_bytes(model) == 2 * sum(p.numel() for p in model.parameters())
    untied = Transformer(SMALL.model_copy(update={"tie_embeddings": False}))
    looked_up = untied.tok_embeddings.weight.numel()
    assert costs.weight_bytes(untied) == 4 * (sum(p.numel() for p in untied.parameters()) - looked_up)


def test_sizes_of_the_growth_curve() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Transformer(settings).parameters()) for settings in SIZES]
    assert counts == sorted(counts)
    assert (round(counts[0] / 1e6), round(counts[-1] / 1e6)) == (1, 362)
    assert round(counts[SIZES.index(SMOLLM2)] / 1e6, 1) == 134.5


def test_deviations_take_the_curves_efficiency_out() -> None:
    points = [{"speed": speed, "speed_law": 10.0, "memory": 2.0, "memory_law": 1.0} for speed in (5.0, 5.0, 1.0)]
    curve = with_deviations({"points": points})
    assert curve["efficiency"] == 0.5
    assert [point["speed_deviation"] for point in curve["points"]] == [1.0, 1.0, 0.2]


def test_llama_cpps_side_samples_from_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", ModuleType("llama_cpp"))
    from bench.peers.llama_cpp_generate import draw

    logits = np.full((2, 1000), -20.0, dtype=np.float32)  # 1000: the last block is not full
    logits[0, [3, 255, 256, 999]] = np.log([0.1, 0.2, 0.3, 0.4])
    logits[1, 700] = 5.0
    count = 40_000
    drawn = draw(logits, np.repeat([0, 1], count), np.random.default_rng(0))
    shares = [(drawn[:count] == token).mean() for token in (3, 255, 256, 999)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.01)
    assert (drawn[count:] == 700).mean() > 0.999
    assert draw(logits, np.array([0, 0, 1]), None).tolist() == [999, 999, 700]
