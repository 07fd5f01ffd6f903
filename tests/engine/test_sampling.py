from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ayni.engine.rows import uniforms
from ayni.engine.sampling import inverse_cdf, sample, top_log_probs


def draw(logits_V: torch.Tensor, temperature: float, top_p: float = 1.0, count: int = 20_000, **options: int) -> tuple:
    logits_BV = logits_V.expand(count, -1)
    u_B = torch.from_numpy(uniforms(seed=7, sample=3, count=count))
    return sample(logits_BV, torch.full((count,), temperature), torch.full((count,), top_p), u_B, **options)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("vocab", [10, 64, 150])
def test_sampling_follows_the_distribution(temperature: float, vocab: int) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(vocab))
    ids, logprobs = draw(logits, temperature)
    expected = torch.softmax(logits.double() / temperature, 0).numpy()
    counts = np.bincount(ids.numpy(), minlength=vocab)
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > 0.001
    assert np.allclose(logprobs.numpy(), np.log(expected)[ids.numpy()], atol=1e-5)


def test_inverse_cdf_equals_a_plain_cumulative_sum() -> None:
    rng = np.random.default_rng(0)
    weight = rng.exponential(size=(500, 200)).astype(np.float32) * (rng.random((500, 200)) < 0.3)
    weight[:, 150] += 0.1
    u = rng.random(500)
    cumulative = weight.astype(np.float64).cumsum(1)
    expected = [np.searchsorted(row, at * row[-1], side="right") for row, at in zip(cumulative, u)]
    ids = inverse_cdf(torch.from_numpy(weight), torch.from_numpy(u)).numpy()
    assert (ids == expected).mean() > 0.998  # blocks sum in fp32: a draw within 1e-7 of an edge may fall beyond it
    assert (weight[np.arange(500), ids] > 0).all()


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53, 0.5])
def test_no_token_of_probability_zero_even_at_the_ends(u: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        weight = torch.rand(1, 130, generator=generator) * (torch.rand(1, 130, generator=generator) < 0.05)
        weight[0, int(torch.randint(130, (1,), generator=generator))] = 1e-30
        picked = inverse_cdf(weight, torch.tensor([u], dtype=torch.float64))
        assert weight[0, picked] > 0


def test_trap_01_reported_log_probability_is_of_the_full_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    full = torch.log_softmax(logits / 0.8, 0)
    ids, logprobs = draw(logits, 0.8, top_p=0.8)
    assert set(ids.tolist()) == {0, 1}  # their shares: 0.72 and 0.21
    assert torch.allclose(logprobs, full[ids])


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    for top_p, kept in ((0.4, {1}), (0.6, {1, 3}), (0.8, {1, 2, 3}), (0.95, {0, 1, 2, 3}), (1e-6, {1})):
        ids, _ = draw(logits, 1.0, top_p, count=2000)
        assert set(ids.tolist()) == kept
    counts = np.bincount(draw(logits, 1.0, 0.6)[0].numpy(), minlength=4)
    assert stats.chisquare(counts[[1, 3]], counts.sum() * np.array([2 / 3, 1 / 3])).pvalue > 0.001


def test_temperature_zero_is_greedy_beside_sampled_rows() -> None:
    logits = torch.randn(64, 90, generator=torch.Generator().manual_seed(1))
    temperature = torch.tensor([0.0, 1.0]).repeat(32)
    u = torch.rand(64, generator=torch.Generator().manual_seed(2))
    ids, logprobs = sample(logits, temperature, torch.ones(64), u)
    assert torch.equal(ids[::2], logits[::2].argmax(1))
    assert not torch.equal(ids[1::2], logits[1::2].argmax(1))
    assert torch.allclose(logprobs, torch.log_softmax(logits, 1).gather(1, ids[:, None])[:, 0], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_trap_10_padding_is_never_emitted(temperature: float) -> None:
    logits = torch.tensor([0.0, 3.0, 1.0])
    ids, logprobs = draw(logits, temperature, count=1000, banned_id=1)
    assert set(ids.tolist()) == ({2} if temperature == 0 else {0, 2})
    assert torch.allclose(logprobs, torch.log_softmax(logits, 0)[ids])


def test_uniforms_depend_on_seed_sample_and_step_alone() -> None:
    assert np.array_equal(uniforms(5, 1, 10), uniforms(5, 1, 30)[:10])
    streams = np.stack([uniforms(seed, nth, 1000) for seed in (0, 1, 2**63) for nth in (0, 1)])
    assert streams.min() >= 0
    assert streams.max() < 1
    assert np.abs(np.corrcoef(streams) - np.eye(6)).max() < 0.15


def test_the_coldest_temperature_and_the_smallest_nucleus_are_greedy() -> None:
    logits = 50 * torch.randn(40, 90, generator=torch.Generator().manual_seed(3))
    u = torch.rand(40, generator=torch.Generator().manual_seed(4))
    for temperature, top_p in ((1e-12, 1.0), (1e-29, 1.0), (1e-31, 1.0), (1e-40, 1.0), (1.0, 1e-320), (1e-40, 1e-320)):
        ids, logprobs = sample(logits, torch.full((40,), temperature), torch.full((40,), top_p), u)
        assert torch.equal(ids, logits.argmax(1))
        assert logprobs.isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, 0.01, 1.0])
def test_trap_10_padding_stays_away_where_the_model_wants_nothing_else(temperature: float) -> None:
    """Beside such a padding token all others round to probability 0 in fp32."""
    logits = torch.tensor([0.0, 200.0, 1.0, 1.005])
    ids, logprobs = draw(logits, temperature, count=20_000, banned_id=1)
    if temperature == 0:
        assert set(ids.tolist()) == {3}
    else:
        expected = torch.softmax(logits[[0, 2, 3]].double() / temperature, 0).numpy() * 20_000
        counts = np.bincount(ids.numpy(), minlength=4)[[0, 2, 3]]
        likely = expected > 5
        assert stats.chisquare(counts[likely], expected[likely] * counts.sum() / expected[likely].sum()).pvalue > 0.001
    full = torch.log_softmax(logits / (temperature or 1.0), 0)
    assert torch.allclose(logprobs, full[ids], rtol=1e-5)


def test_top_log_probs_are_in_descending_order_with_their_ids() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(5))
    temperature = torch.tensor([0.0, 0.5, 1.0, 2.0, 1e-40, 1.0])
    values, ids = top_log_probs(logits, temperature, 7)
    for row, divisor in enumerate([1.0, 0.5, 1.0, 2.0, 1.0, 1.0]):
        expected = sorted(enumerate(torch.log_softmax(logits[row] / divisor, 0).tolist()), key=lambda pair: -pair[1])
        assert ids[row].tolist() == [id for id, _ in expected[:7]]
        assert values[row].tolist() == pytest.approx([value for _, value in expected[:7]], abs=1e-5)
